"""Weights: the published layout in every wrapping, faults listed by name, folders held to their hash."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import eozip
import vectors
from eozip import hub
from eozip.codecs.terracodec import published
from eozip.errors import WeightsError


@pytest.fixture(scope="module")
def fp() -> dict[str, torch.Tensor]:
    return vectors.weights("fp-small")


def prefixed(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: t for name, t in weights.items()}


def with_derived(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with the buffers that published checkpoints carry beside their parameters."""
    return {
        **weights,
        "entropy_bottleneck._quantized_cdf": torch.zeros(32, 40, dtype=torch.int32),
        "entropy_bottleneck._offset": torch.zeros(32, dtype=torch.int32),
        "entropy_bottleneck._cdf_length": torch.zeros(32, dtype=torch.int32),
        "entropy_bottleneck.target": torch.zeros(3),
        "entropy_bottleneck.likelihood_lower_bound.bound": torch.zeros(1),
        "g_a.1.beta_reparam.pedestal": torch.zeros(1),
        "g_a.1.beta_reparam.lower_bound.bound": torch.zeros(1),
    }


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
def test_checkpoint_loads_in_every_wrapping(fp, tmp_path, suffix, prefix):
    path = tmp_path / f"checkpoint{suffix}"
    content = prefixed(with_derived(fp), prefix)
    torch.save(content, path) if suffix == ".pt" else save_file(content, path)
    weights = hub.load(path)
    assert weights.kind == "tec-fp"
    assert weights.config == {"bands": 12, "n": 24, "m": 32}
    assert set(weights.tensors) == set(fp)
    assert eozip.load(path).id == published.from_weights(hub.recognise(fp, "direct")).id


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [
        ("elic-small", "tec-elic", {"bands": 12, "n": 32, "m": 160}),
        ("tt-small", "tec-tt", {"bands": 12, "widths": (24, 24, 32, 32), "d": 64}),
        ("flextec-small", "flextec", {"bands": 12, "widths": (24, 24, 32, 64), "d": 64}),
    ],
)
def test_network_and_sizes_are_read_from_names_and_shapes(name, kind, config):
    weights = hub.recognise(prefixed(vectors.weights(name), "model."), name)
    assert weights.kind == kind
    assert {key: weights.config[key] for key in config} == config


def test_temporal_wrapper_drops_what_lies_beside_the_network():
    inside = vectors.weights("tt-small")
    content = {**prefixed(inside, "model."), "loss.weight": torch.ones(3)}
    assert set(hub.recognise(content, "tt").tensors) == set(inside)


def test_half_precision_is_widened(fp):
    weights = hub.recognise({name: t.half() for name, t in fp.items()}, "half")
    assert {t.dtype for t in weights.tensors.values()} == {torch.float32}


def test_every_fault_of_a_checkpoint_is_listed(fp):
    faulty = dict(fp)
    del faulty["g_s.2.weight"], faulty["g_a.3.beta"]
    faulty["g_s.6.bias"] = torch.zeros(13)
    faulty["g_a.9.weight"] = torch.zeros(2, 2)
    with pytest.raises(WeightsError) as error:
        published.from_weights(hub.recognise(faulty, "faulty.pt"))
    message = str(error.value)
    assert "4 tensors" in message
    assert "missing g_s.2.weight [24, 24, 5, 5]" in message
    assert "missing g_a.3.beta [24]" in message
    assert "unexpected g_a.9.weight [2, 2]" in message
    assert "g_s.6.bias: expected float [12], got torch.float32 [13]" in message


def test_values_that_are_no_numbers_are_listed(fp):
    broken = {**fp, "g_s.6.bias": torch.full((12,), float("nan"))}
    with pytest.raises(WeightsError, match=r"g_s\.6\.bias: holds NaN"):
        published.from_weights(hub.recognise(broken, "x"))


def test_extra_tensors_of_an_image_checkpoint_are_not_dropped(fp):
    content = {**prefixed(fp, "model."), "stranger": torch.ones(3)}
    with pytest.raises(WeightsError, match="unexpected stranger"):
        published.from_weights(hub.recognise(content, "x"))


def test_a_missing_first_layer_is_named(fp):
    content = {name: t for name, t in fp.items() if name != "g_a.0.weight"}
    with pytest.raises(WeightsError, match=r"g_a\.0\.weight"):
        hub.recognise(content, "x")


def test_another_network_is_refused():
    with pytest.raises(WeightsError, match=r"conv1\.weight"):
        hub.recognise({"conv1.weight": torch.zeros(3)}, "resnet.pt")


def test_a_band_count_without_sensor_is_refused(fp):
    content = {**fp, "g_a.0.weight": torch.zeros(24, 5, 5, 5), "g_s.6.weight": torch.zeros(24, 5, 5, 5)}
    with pytest.raises(WeightsError, match="12 or 13 bands, got 5"):
        published.from_weights(hub.recognise(content, "x"))


class Payload:
    """What a hostile checkpoint holds: unpickling it writes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    target, path = tmp_path / "ran", tmp_path / "evil.pt"
    torch.save({"g_a.0.weight": Payload(target)}, path)
    with pytest.raises(WeightsError, match="refused"):
        hub.load(path)
    assert not target.exists()
    # the attack is real: the same file runs its code when opened without care
    torch.load(path, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\xff" * 64])
def test_damaged_files_give_a_named_error(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="x"):
        hub.load(path)


def test_truncated_checkpoint_gives_a_named_error(fp, tmp_path):
    for name, save in (("a.pt", torch.save), ("a.safetensors", save_file)):
        path = tmp_path / name
        save(fp, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(WeightsError):
            hub.load(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3, "w": torch.ones(1)}, {}])
def test_a_pt_without_plain_tensors_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="expected"):
        hub.load(path)


def test_unknown_source_lists_what_is_known():
    with pytest.raises(WeightsError, match=r"TerraCodec-1\.0-ELIC-S2L2A"):
        hub.load("no/such-model")


# Folders --------------------------------------------------------------------------------------------------


def test_folder_round_trip(fp, tmp_path):
    hub.write_folder(tmp_path / "w", fp, {"kind": "tec-fp-small", "sensor": "s2-l2a"}, "# Card\n")
    weights = hub.load(tmp_path / "w")
    assert weights.kind == "tec-fp-small"
    assert all(torch.equal(weights.tensors[name], fp[name]) for name in fp)
    assert not list((tmp_path / "w").glob("*.part"))


def test_changed_tensors_do_not_pass_the_declared_hash(fp, tmp_path):
    hub.write_folder(tmp_path, fp, {"kind": "tec-fp-small"}, "")
    save_file({**fp, "g_s.6.bias": fp["g_s.6.bias"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="SHA-256"):
        hub.load(tmp_path)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(fp, tmp_path, missing):
    hub.write_folder(tmp_path, fp, {"kind": "tec-fp-small"}, "")
    (tmp_path / missing).unlink()
    with pytest.raises(WeightsError, match=missing):
        hub.load(tmp_path)


def test_config_without_hash_is_refused(fp, tmp_path):
    hub.write_folder(tmp_path, fp, {"kind": "tec-fp-small"}, "")
    (tmp_path / "config.json").write_text(json.dumps({"kind": "tec-fp-small"}))
    with pytest.raises(WeightsError, match="SHA-256"):
        hub.load(tmp_path)


def test_shipped_weights_are_what_they_declare():
    for name in hub.shipped():
        weights = hub.load(name)
        assert all(np.isfinite(t.numpy()).all() for t in weights.tensors.values() if t.is_floating_point())


def test_shipped_path_lists_what_there_is():
    with pytest.raises(WeightsError, match="no shipped weights 'none-such'"):
        hub.shipped_path("none-such")


# Repositories ---------------------------------------------------------------------------------------------


def test_models_list_needs_no_network():
    infos = {info.id: info for info in hub.list_models()}
    assert infos["embed2scale/TerraCodec-1.0-FP-S2L2A"].lambdas == (0.5, 2, 10, 40, 200)
    assert set(hub.shipped()) <= set(infos)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, no proxy, an empty cache."""

    def refuse(*_args, **_kwargs):
        raise OSError("Name or service not known")

    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(key, raising=False)
    hub_library = pytest.importorskip(
        "huggingface_hub", reason="huggingface_hub (extra 'hub') is not installed"
    )
    monkeypatch.setattr(hub_library, "try_to_load_from_cache", lambda *_a, **_k: None)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_offline_is_said_at_once(offline):
    start = time.monotonic()
    with pytest.raises(WeightsError, match=r"no network.*TerraCodec_v1_ELIC_S2L2A_lambda-40\.pt"):
        hub.load("embed2scale/TerraCodec-1.0-ELIC-S2L2A@lambda-40")
    assert time.monotonic() - start < 2


def test_cached_checkpoint_needs_no_network(offline, fp, tmp_path, monkeypatch):
    import huggingface_hub

    path = tmp_path / "cached.pt"
    torch.save(prefixed(fp, "model."), path)
    asked = []

    def cache(repository: str, filename: str) -> str:
        asked.append((repository, filename))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cache)
    weights = hub.load("embed2scale/TerraCodec-1.0-FP-S2L2A", lmbda=0.5)
    assert asked == [("embed2scale/TerraCodec-1.0-FP-S2L2A", "TerraCodec_v1_FP_S2L2A_lambda-0.5.pt")]
    assert weights.kind == "tec-fp"


def test_single_rate_repository_needs_no_lambda(offline):
    with pytest.raises(WeightsError, match=r"FlexTEC_v1_S2L2A_lambda-800\.pt"):
        hub.pull("embed2scale/TerraCodec-1.0-FlexTEC-S2L2A")


@pytest.mark.parametrize(
    ("name", "lmbda", "expected"),
    [
        ("embed2scale/TerraCodec-1.0-FP-S2L2A@best", None, r"lambda-0\.5, .*lambda-200.*got best"),
        ("embed2scale/TerraCodec-1.0-FP-S2L2A", float("nan"), "got nan"),
        ("embed2scale/TerraCodec-1.0-FP-S2L2A@lambda-10-lronly", None, "got lambda-10-lronly"),
        ("embed2scale/TerraCodec-1.0-FP-S2L2A@lambda-2", 10, "given twice"),
        ("embed2scale/TerraCodec-9", None, "unknown repository"),
    ],
)
def test_a_wrong_rate_is_named(name, lmbda, expected):
    with pytest.raises(WeightsError, match=expected):
        hub.pull(name, lmbda)


@pytest.mark.parametrize(
    ("name", "lmbda", "file"),
    [
        ("FP-S2L2A", None, "TerraCodec_v1_FP_S2L2A_lambda-10.pt"),
        ("ELIC-S2L2A", None, "TerraCodec_v1_ELIC_S2L2A_lambda-10.pt"),
        ("TT-S2L2A", None, "TerraCodec_v1_TT_S2L2A_lambda-5.pt"),
        ("TT-S2L1C", None, "TerraCodec_v1_TT_S2L1C_lambda-20.pt"),
        ("FlexTEC-S2L2A", None, "FlexTEC_v1_S2L2A_lambda-800.pt"),
        ("FlexTEC-S2L2A@lambda-800-lronly", None, "FlexTEC_LRonly_v1_S2L2A_lambda-800.pt"),
        ("FlexTEC-S2L2A", "lambda-800-lronly", "FlexTEC_LRonly_v1_S2L2A_lambda-800.pt"),
        ("ELIC-S2L2A", "lambda-0.5", "TerraCodec_v1_ELIC_S2L2A_lambda-0.5.pt"),
        ("ELIC-S2L2A@0.5", None, "TerraCodec_v1_ELIC_S2L2A_lambda-0.5.pt"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_rate_or_its_default_names_a_file(offline, name, lmbda, file):
    with pytest.raises(WeightsError, match=f"put {file}"):
        hub.pull(f"embed2scale/TerraCodec-1.0-{name}", lmbda)


@pytest.mark.parametrize(("asked", "taken"), [(39, "40"), (0.1, "0.5"), ("lambda-1000", "200")])
def test_the_nearest_rate_is_taken_and_said(offline, asked, taken):
    with (
        pytest.warns(UserWarning, match=f"taking the nearest, {taken}"),
        pytest.raises(WeightsError, match=f"lambda-{taken}.pt"),
    ):
        hub.pull("embed2scale/TerraCodec-1.0-FP-S2L2A", asked)


def test_every_checkpoint_is_listed():
    listed = {info.id: info.checkpoints for info in hub.list_models() if not info.shipped}
    assert sum(map(len, listed.values())) == 22
    assert "lambda-800-lronly" in listed["embed2scale/TerraCodec-1.0-FlexTEC-S2L2A"]
