"""The published repositories on Hugging Face: what they offer, and fetching one checkpoint."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import WeightsError

CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class ModelInfo:
    """One line of `eozip models`.

    Attributes:
        id: What `eozip.load` takes.
        kind: Network.
        sensor: "s2-l2a" or "s2-l1c".
        lambdas: Rates a repository offers; empty for shipped weights, which do every quality.
        shipped: True if it is in this package.
    """

    id: str
    kind: str
    sensor: str
    lambdas: tuple[float, ...] = ()
    shipped: bool = False


_IMAGE_LAMBDAS = (0.5, 2, 10, 40, 200)
PUBLISHED = (
    ModelInfo("embed2scale/TerraCodec-1.0-FP-S2L2A", "tec-fp", "s2-l2a", _IMAGE_LAMBDAS),
    ModelInfo("embed2scale/TerraCodec-1.0-ELIC-S2L2A", "tec-elic", "s2-l2a", _IMAGE_LAMBDAS),
    ModelInfo("embed2scale/TerraCodec-1.0-TT-S2L2A", "tec-tt", "s2-l2a", (0.4, 1, 5, 20, 100, 200, 700)),
    ModelInfo("embed2scale/TerraCodec-1.0-TT-S2L1C", "tec-tt", "s2-l1c", (5, 20, 100)),
    ModelInfo("embed2scale/TerraCodec-1.0-FlexTEC-S2L2A", "flextec", "s2-l2a", (800,)),
)


def pull(name: str, lmbda: float | None = None) -> Path:
    """Downloads a published checkpoint, or finds it in the local cache of huggingface_hub.

    Args:
        name: Such as "embed2scale/TerraCodec-1.0-ELIC-S2L2A", optionally with "@lambda-40".
        lmbda: The rate, where `name` does not say it. Needed unless the repository has only one.

    Returns:
        Path of the file in the cache.

    Raises:
        WeightsError: Unknown repository or rate, huggingface_hub not installed, or no network.
    """
    info, rate = _rate(name, lmbda)
    filename = published_file(info, rate)
    try:
        import huggingface_hub
    except ImportError as error:
        raise WeightsError(
            f"{info.id}: needs huggingface_hub: pip install 'eozip[hub]', or fetch {filename} from "
            f"https://huggingface.co/{info.id} and give its path"
        ) from error
    cached = huggingface_hub.try_to_load_from_cache(info.id, filename)
    if isinstance(cached, str):
        return Path(cached)
    _check_online(info.id, filename)
    try:
        return Path(huggingface_hub.hf_hub_download(info.id, filename, etag_timeout=CONNECT_SECONDS))
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise WeightsError(f"{info.id}: downloading {filename} failed: {error}") from error


def published_file(info: ModelInfo, lmbda: float) -> str:
    """File name of one checkpoint in its repository."""
    model, product = info.id.removeprefix("embed2scale/TerraCodec-1.0-").split("-")
    stem = "FlexTEC_v1" if model == "FlexTEC" else f"TerraCodec_v1_{model}"
    return f"{stem}_{product}_lambda-{lmbda:g}.pt"


def _rate(name: str, lmbda: float | None) -> tuple[ModelInfo, float]:
    repository, _, suffix = name.partition("@")
    info = next((info for info in PUBLISHED if info.id == repository), None)
    if info is None:
        raise WeightsError(f"unknown repository {repository!r}; known: {', '.join(i.id for i in PUBLISHED)}")
    offered = ", ".join(f"{value:g}" for value in info.lambdas)
    asked = _suffix_rate(suffix) if suffix else lmbda
    if suffix and lmbda is not None:
        raise WeightsError(f"{name}: lambda given twice, in the name and as {lmbda:g}; give it once")
    if asked is None and len(info.lambdas) == 1:
        asked = info.lambdas[0]
    if asked not in info.lambdas:
        raise WeightsError(
            f"{name}: expected one of the lambdas {offered}, as {repository}@lambda-..., got {asked}"
        )
    return info, asked


def _suffix_rate(suffix: str) -> float | str:
    match = re.fullmatch(r"lambda-(\d+(?:\.\d+)?)", suffix)
    return float(match[1]) if match else suffix


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
        socket.create_connection((parts.hostname, parts.port or 443), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise WeightsError(
            f"{repository}: not in the local cache, and no network ({error}); {advice}"
        ) from error
