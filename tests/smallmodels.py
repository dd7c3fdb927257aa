"""Tiny seeded `small` models, at their closed-form start with noise on last layers and levels, for tests that need no
good rate."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eozip.codecs.small.image_codec import SmallCodec
from eozip.codecs.small.image_model import SmallImageModel
from eozip.codecs.small.networks import SmallConfig
from eozip.codecs.small.series_codec import SeriesCodec
from eozip.codecs.small.series_model import SeriesModel
from eozip.codecs.small.weight_files import load_small, save_small
from eozip_lab.train import start
from eozip_lab.train.start_linear import set_linear_entropy
from eozip_lab.train.start_series import begin_series

TINY = {
    "bands": 12,
    "groups": (3, 4, 5),
    "fine": 8,
    "coarse": 16,
    "pixel": 8,
    "blocks": 1,
    "hyper": 8,
    "hyper_latent": 4,
    "context": 12,
    "fit_classes": (7, 3),
}
KINDS = {"tec-elic-tiny": "context", "tec-fp-tiny": "linear"}
NOISE = 0.02
FOUR_GROUPS = (3, 4, 5, 6)


def scene(frames: int, height: int, width: int, seed: int = 0, bands: int = 12) -> np.ndarray:
    """Smooth fields with texture, float32 [T, C, H, W] DN."""
    rng = np.random.default_rng(seed)
    i, j = np.arange(height)[:, None], np.arange(width)[None, :]
    fields = np.sin(i / 9.0) * np.cos(j / 7.0) + 0.3 * rng.standard_normal((height, width))
    gains = rng.uniform(300, 900, (frames, bands, 1, 1))
    dn = 2000 + gains * fields + 15 * rng.standard_normal((frames, bands, height, width))
    return dn.clip(1, 12000).astype(np.float32)


@cache
def tiny_model(kind: str) -> SmallImageModel:
    torch.manual_seed(3)
    return begun(SmallConfig(entropy=KINDS[kind], **TINY), NOISE)


@cache
def tiny_image_model(groups: tuple[int, ...], noise: float) -> SmallImageModel:
    """A tec-elic-tiny of other groups."""
    torch.manual_seed(5)
    return begun(SmallConfig(entropy="context", **{**TINY, "groups": groups}), noise)


def begun(config: SmallConfig, noise: float) -> SmallImageModel:
    model = SmallImageModel(config)
    dn = torch.from_numpy(np.concatenate([scene(2, 64, 64, seed) for seed in range(40)]))
    start.begin(model, dn, {}, set_linear_entropy)
    with torch.no_grad():  # closed forms leave last layers at zero: give every layer something to say
        for name, p in model.named_parameters():
            if "leave" in name or "level" in name:
                p.add_(noise * torch.randn_like(p))
    return model.eval()


def unfitted(codec: SmallCodec) -> SmallCodec:
    """The same without a closing fit and native grids: what the networks say."""

    def send_end(self, port, x, *_):
        return np.zeros(len(x))

    def read_end(self, port, x_hat, quality):
        return x_hat

    return _with_methods(codec, send_end=send_end, read_end=read_end)


def gridless(codec: SmallCodec) -> SmallCodec:
    """The same without native grids."""
    return _with_methods(codec, groups=())


def _with_methods(codec: SmallCodec, **changed: Any) -> SmallCodec:
    kind = type(codec)
    return type(kind.__name__, (kind,), changed)(**{f.name: getattr(codec, f.name) for f in fields(codec)})


def tiny_codec(kind: str, folder: Path) -> SmallCodec:
    save_small(folder, tiny_model(kind), f"{kind}-s2l2a-v1", "s2-l2a", "a card")
    return load_small(folder)


def series_scene(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """One place on several dates: `scene` with a change of brightness, new noise and a patch that is another each date."""
    rng = np.random.default_rng(seed)
    dates = np.repeat(scene(1, height, width, seed), frames, 0)
    for date in dates[1:]:
        top, left = rng.integers(height), rng.integers(width)
        date *= rng.uniform(0.9, 1.1)
        date[:, top : top + 16, left : left + 24] *= rng.uniform(0.5, 2)
    return (dates + 20 * rng.standard_normal(dates.shape)).clip(1, 12000).astype(np.float32)


@cache
def tiny_series_model(groups: tuple[int, ...] = TINY["groups"], noise: float = NOISE) -> SeriesModel:
    """tec-tt-small's start from the tec-elic-tiny of these groups, with noise on the networks over time too."""
    spatial = tiny_model("tec-elic-tiny") if groups == TINY["groups"] else tiny_image_model(groups, noise)
    torch.manual_seed(4)
    model = SeriesModel(SmallConfig(entropy="time", **{**TINY, "groups": groups}, time=10))
    begin_series(model, torch.empty(0), spatial.state_dict())
    with torch.no_grad():
        for name, p in model.entropy.time.named_parameters():
            if name.split(".")[1] in ("leave", "level", "rank"):
                p.add_(2 * noise * torch.randn_like(p))
    return model.eval()


def tiny_series_codec(
    folder: Path, groups: tuple[int, ...] = TINY["groups"], noise: float = NOISE
) -> SeriesCodec:
    save_small(folder, tiny_series_model(groups, noise), "tec-tt-tiny-s2l2a-v1", "s2-l2a", "a card")
    return load_small(folder)
