"""The published repositories on Hugging Face: what they offer, and fetching one checkpoint."""

from __future__ import annotations

import os
import re
import socket
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from eozip.errors import WeightsError
from eozip.lazy import optional

_CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class ModelInfo:
    """One line of `eozip models`.

    Attributes:
        id: What `eozip.load` takes.
        kind: Network.
        sensor: "s2-l2a" or "s2-l1c".
        lambdas: Rates a repository offers; empty for shipped weights, which do every quality.
        shipped: True if it is in this package.
        default: The rate for who names none; None for shipped weights.
        variants: Further checkpoints of the rates, such as "lronly" in "@lambda-800-lronly".
    """

    id: str
    kind: str
    sensor: str
    lambdas: tuple[float, ...] = ()
    shipped: bool = False
    default: float | None = None
    variants: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """What may stand behind "@" in a name, such as "lambda-10"."""
        plain = [f"lambda-{value:g}" for value in self.lambdas]
        return (*plain, *(f"{rate}-{variant}" for variant in self.variants for rate in plain))


_IMAGE_LAMBDAS = (0.5, 2, 10, 40, 200)
_TT_LAMBDAS = (0.4, 1, 5, 20, 100, 200, 700)
_TERRACODEC = "embed2scale/TerraCodec-1.0-"
PUBLISHED = (
    ModelInfo(f"{_TERRACODEC}FP-S2L2A", "tec-fp", "s2-l2a", _IMAGE_LAMBDAS, default=10),
    ModelInfo(f"{_TERRACODEC}ELIC-S2L2A", "tec-elic", "s2-l2a", _IMAGE_LAMBDAS, default=10),
    ModelInfo(f"{_TERRACODEC}TT-S2L2A", "tec-tt", "s2-l2a", _TT_LAMBDAS, default=5),
    ModelInfo(f"{_TERRACODEC}TT-S2L1C", "tec-tt", "s2-l1c", (5, 20, 100), default=20),
    ModelInfo(f"{_TERRACODEC}FlexTEC-S2L2A", "flextec", "s2-l2a", (800,), default=800, variants=("lronly",)),
)
_CHECKPOINT = re.compile(r"(?:lambda-)?(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:-([a-z]+))?")


def pull(name: str, lmbda: float | str | None = None) -> Path:
    """Download a published checkpoint, or find it in the local cache of huggingface_hub.

    Args:
        name: Such as "embed2scale/TerraCodec-1.0-ELIC-S2L2A", optionally with "@lambda-40".
        lmbda: The rate, where `name` does not say it: a number, or as behind "@". The nearest rate that there is
            is taken, with a warning if it is another; without any, the repository's default.

    Returns:
        Path of the file in the cache.

    Raises:
        WeightsError: Unknown repository or checkpoint, huggingface_hub not installed, or no network.
    """
    info, filename = _chosen(name, lmbda)
    huggingface_hub = optional(
        "huggingface_hub",
        f"{info.id}: needs huggingface_hub: pip install 'eozip[hub]', or fetch {filename} from "
        f"https://huggingface.co/{info.id} and give its path",
        WeightsError,
    )
    cached = huggingface_hub.try_to_load_from_cache(info.id, filename)
    if isinstance(cached, str):
        return Path(cached)
    _check_online(info.id, filename)
    try:
        return Path(huggingface_hub.hf_hub_download(info.id, filename, etag_timeout=_CONNECT_SECONDS))
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise WeightsError(f"{info.id}: downloading {filename} failed: {error}") from error


def cached_checkpoints(kind: str, sensor: str) -> list[Path]:
    """Find published checkpoints that lie in the local cache already; asks no network.

    Args:
        kind: of network, such as "tec-elic".
        sensor: id.
    """
    try:
        import huggingface_hub  # optional
    except ImportError:
        return []
    found = [
        huggingface_hub.try_to_load_from_cache(info.id, _published_file(info, checkpoint))
        for info in PUBLISHED
        if (info.kind, info.sensor) == (kind, sensor)
        for checkpoint in info.checkpoints
    ]
    return [Path(path) for path in found if isinstance(path, str)]


def _published_file(info: ModelInfo, checkpoint: str) -> str:
    """File name of one of the `checkpoints` of a repository, such as "lambda-10"."""
    model, product = info.id.removeprefix(_TERRACODEC).split("-")
    rate, _, variant = checkpoint.removeprefix("lambda-").partition("-")
    part = "_LRonly" if variant == "lronly" else ""
    stem = f"FlexTEC{part}_v1" if model == "FlexTEC" else f"TerraCodec_v1_{model}"
    return f"{stem}_{product}_lambda-{rate}.pt"


def _chosen(name: str, lmbda: float | str | None) -> tuple[ModelInfo, str]:
    """Repository and file of a name and a rate; warns where the rate is not the one that was asked for."""
    repository, _, suffix = name.partition("@")
    info = next((info for info in PUBLISHED if info.id == repository), None)
    if info is None:
        raise WeightsError(f"unknown repository {repository!r}; known: {', '.join(i.id for i in PUBLISHED)}")
    if suffix and lmbda is not None:
        raise WeightsError(f"{name}: lambda given twice, in the name and as {lmbda}; give it once")
    asked = suffix or (f"{lmbda:g}" if isinstance(lmbda, int | float) else lmbda)
    match = _CHECKPOINT.fullmatch(asked or f"{info.default:g}")
    if match is None or (match[2] and match[2] not in info.variants):
        raise WeightsError(
            f"{name}: expected one of {', '.join(info.checkpoints)} behind {repository}@, got {asked}"
        )
    rate = _nearest(info, float(match[1]))
    return info, _published_file(info, f"lambda-{rate:g}" + (f"-{match[2]}" if match[2] else ""))


def _nearest(info: ModelInfo, asked: float) -> float:
    nearest = min(info.lambdas, key=lambda rate: abs(rate - asked))
    if nearest != asked:
        warnings.warn(
            f"{info.id}: there is no lambda {asked:g}, taking the nearest, {nearest:g} (there are "
            f"{', '.join(f'{value:g}' for value in info.lambdas)})",
            stacklevel=2,
        )
    return nearest


def _check_online(repository: str, filename: str) -> None:
    """Fails within seconds where there is no network; huggingface_hub would go on trying for minutes."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    advice = f"put {filename} somewhere by other means and give its path"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise WeightsError(f"{repository}: not in the local cache and HF_HUB_OFFLINE is set; {advice}")
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return  # a proxy answers for the host: huggingface_hub reports its refusal
    parts = urlsplit(endpoint)
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise WeightsError(
            f"{repository}: not in the local cache, and no network ({error}); {advice}"
        ) from error
