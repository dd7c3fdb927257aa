"""State dicts as the published package writes them: buffers beside parameters, older names, and what is refused."""

from __future__ import annotations

import json
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import vectors
from eozip import hub
from eozip.codecs.terracodec import published, temporal
from eozip.codecs.terracodec.models import ElicModel, FactorizedModel
from eozip.errors import WeightsError

LISTED = vectors.ROOT / "reference" / "state_dicts.json"
LIKELIHOOD = ("_offset", "_quantized_cdf", "_cdf_length", "likelihood_lower_bound.bound")
GAUSSIAN = (*LIKELIHOOD, "scale_table", "scale_bound", "lower_bound_scale.bound")
GRID = (
    *GAUSSIAN, "_indexes_table", "_prior_mean", "_prior_scale",
    "lower_bound_zero.bound", "upper_bound_mean.bound", "upper_bound_scale.bound",
)  # fmt: skip


def buffers(kind: str) -> list[str]:
    """Names of all buffers that the package's modules register, as it saves them."""
    if kind == "tec-fp":
        gdn = [f"{g}.{i}.{part}_reparam.{leaf}" for g in ("g_a", "g_s") for i in (1, 3, 5)
               for part in ("beta", "gamma") for leaf in ("pedestal", "lower_bound.bound")]  # fmt: skip
        return [f"entropy_bottleneck.{n}" for n in (*LIKELIHOOD, "target")] + gdn
    if kind == "tec-elic":
        groups = [f"latent_codec.y.latent_codec.y{k}" for k in range(5)]
        names = [f"{g}.y.gaussian_conditional.{n}" for g in groups for n in GAUSSIAN]
        names += [f"{g}.context_prediction.mask" for g in groups]
        return names + [f"latent_codec.hyper.entropy_bottleneck.{n}" for n in (*LIKELIHOOD, "target")]
    masks = [f"entropy_model.decoder.layers.encoder_layer_{i}.look_ahead_mask" for i in range(2)]
    return [f"entropy_model.bottleneck._entropy_model.{n}" for n in GRID] + masks


def small(kind: str) -> dict[str, Tensor]:
    """Parameters of a small network, values by formula."""
    sizes = {"tec-fp": (FactorizedModel, 24, 32), "tec-elic": (ElicModel, 16, 144)}
    if kind in sizes:
        network, n, m = sizes[kind]
        model: torch.nn.Module = network(12, n, m)
    else:
        widths = (16, 16, 16, 64 if kind == "flextec" else 32)
        model = temporal.TemporalModel(12, widths, 32, (1, 1, 2), 4, kind == "flextec")
    return {name: 0.1 * vectors.uniform(name, tuple(t.shape)) for name, t in model.state_dict().items()}


def as_written(kind: str, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """With all buffers, under the prefix that the package's checkpoints have."""
    whole = {**parameters, **{name: torch.zeros(1) for name in buffers(kind)}}
    return {f"model.{name}": t for name, t in whole.items()}


KINDS = ("tec-fp", "tec-elic", "tec-tt", "flextec")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_state_dict_loads_as_its_parameters_do(kind, suffix, tmp_path):
    parameters, path = small(kind), tmp_path / f"x{suffix}"
    content = as_written(kind, parameters)
    torch.save(content, path) if suffix == ".pt" else save_file(content, path)
    loaded = hub.load(path)
    assert loaded.kind == kind
    assert set(loaded.tensors) == set(parameters)
    assert published.from_weights(loaded).id == published.from_weights(hub.recognise(parameters, "x")).id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["g_a.0", "", "stranger"])
def test_a_buffer_where_the_package_has_none_is_refused(kind, place):
    name = f"{place}.scale_bound".lstrip(".")
    with pytest.raises(WeightsError, match=re.escape(f"unexpected {name}")):
        published.from_weights(hub.recognise({**small(kind), name: torch.zeros(1)}, "x"))


@pytest.mark.parametrize("kind", ["tec-fp", "tec-elic"])
def test_names_of_older_compressai(kind):
    parameters, old = small(kind), {}
    for name, t in parameters.items():
        for new, before in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
            if "entropy_bottleneck." in name:
                name = name.replace(new, before)
        old[name] = t
    assert any("_matrix0" in name for name in old)
    weights = hub.recognise(as_written(kind, old), "old")
    assert set(weights.tensors) == set(parameters)


@pytest.mark.skipif(not LISTED.exists(), reason=f"{LISTED} does not come with a clone of eozip")
@pytest.mark.parametrize("at", range(6))
def test_every_published_size(at):
    """Names, shapes and buffers of all real files; their values are all alike, so nothing is as large as it looks."""
    title, listed = list(json.loads(LISTED.read_text()).items())[at]
    dtypes = {"float32": torch.float32, "int32": torch.int32, "bool": torch.bool}
    content = {
        name: torch.full((), 0.01, dtype=torch.float32).expand(shape)
        if dtype == "float32"
        else torch.zeros(shape, dtype=dtypes[dtype])
        for name, (shape, dtype, _) in listed.items()
    }
    weights = hub.recognise(content, title)
    parameters = {name.removeprefix("model.") for name, (*_, role) in listed.items() if role == "parameter"}
    assert title.startswith(weights.kind)
    assert set(weights.tensors) == parameters
    if weights.kind in ("tec-fp", "tec-elic"):
        assert published.from_weights(weights).bands == 12
    else:
        assert temporal.from_weights(weights).transform is not None


# Files that are made to harm ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tensor",
    [
        lambda: torch.zeros(1).expand(1 << 17, 1 << 17),
        lambda: torch.zeros(3).to_sparse(),
        lambda: torch.zeros(4, 4).to_sparse_csc(),
        lambda: torch.zeros(3, device="meta"),
    ],
    ids=["expanded", "sparse", "csc", "meta"],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_tensors_that_are_not_plain_are_named(tensor, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"g_a.0.weight": tensor()}, path)
    with pytest.raises(WeightsError, match=r"dense and in memory.*g_a\.0\.weight|cannot be read"):
        hub.load(path)


@pytest.mark.parametrize("key", [0, None, (1, 2), b"g_a.0.weight"])
def test_keys_that_are_no_names_are_refused(key, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({key: torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="tensors by name"):
        hub.load(path)


def test_many_views_of_one_storage_are_refused(tmp_path):
    base, path = torch.zeros(1 << 18), tmp_path / "x.pt"
    torch.save({f"t{i}": base for i in range(100)}, path)
    with pytest.raises(WeightsError, match="expected at most"):
        hub.load(path)


def test_a_deflated_checkpoint_is_refused_before_it_is_read(tmp_path):
    plain, path = tmp_path / "plain.pt", tmp_path / "x.pt"
    torch.save({"g_a.0.weight": torch.zeros(1 << 22)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
    with pytest.raises(WeightsError, match="expected at most"):
        hub.load(path)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5, 5), (1 << 30, 0, 5, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_shapes_are_named(kind, shape):
    first = {"tec-fp": "g_a.0.weight", "tec-elic": "g_a.13.weight"}.get(
        kind, "entropy_model.encoder_embedding.weight"
    )
    with pytest.raises(WeightsError):
        published.from_weights(hub.recognise({**small(kind), first: torch.zeros(shape)}, "x"))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
def test_other_dtypes_are_named(dtype):
    content = {**small("tec-fp"), "g_s.6.bias": torch.zeros(12, dtype=dtype)}
    with pytest.raises(WeightsError, match=r"g_s\.6\.bias: expected float"):
        published.from_weights(hub.recognise(content, "x"))
