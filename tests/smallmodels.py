"""Tiny seeded `small` models, at their closed-form start with noise on every weight, for tests that need no good rate."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from eozip.codecs.small_codec import SmallCodec
from eozip.codecs.small_files import load_small, save_small
from eozip.codecs.small_model import SmallImageModel
from eozip.networks.small import SmallConfig
from eozip.train import start
from eozip.train.start_linear import set_linear_entropy

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
}
KINDS = {"tec-elic-tiny": "context", "tec-fp-tiny": "linear"}


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
    model = SmallImageModel(SmallConfig(entropy=KINDS[kind], **TINY))
    dn = torch.from_numpy(np.concatenate([scene(2, 64, 64, seed) for seed in range(40)]))
    start.begin(model, dn, {}, set_linear_entropy)
    with torch.no_grad():  # closed forms leave last layers at zero: give every layer something to say
        for name, p in model.named_parameters():
            if "leave" in name or "level" in name:
                p.add_(0.02 * torch.randn_like(p))
    return model.eval()


def tiny_codec(kind: str, folder: Path) -> SmallCodec:
    save_small(folder, tiny_model(kind), f"{kind}-s2l2a-v1", "s2-l2a", "a card")
    return load_small(folder)
