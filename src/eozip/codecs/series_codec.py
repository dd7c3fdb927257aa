"""Encoding and decoding with tec-tt-small: the dates of a chunk one after the other, each from those before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.small_codec import PortCode, SmallCodec, padded
from eozip.coder import EncodePort, EstimatePort, Port
from eozip.networks.small_time import Date

PAST = 12  # dates that one looks back: bounds time and memory of long chunks


@dataclass(frozen=True)
class SeriesCodec(SmallCodec):
    """tec-tt-small as a `Codec`: one section per chunk, in which the dates follow each other."""

    def send(
        self, port: EncodePort | EstimatePort, x: np.ndarray, quality: float
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """-> check values, bits of every date."""
        t = self.level(quality, len(x))
        y = self.model.analyse(self.model.standardise(padded(torch.from_numpy(x))), t)
        ends, checks = [port.bits], []
        for check, _ in self.dates(port, t, tuple(y.shape[2:]), y, self.model.entropy.hyper_latent(y)):
            checks.append(check)
            ends.append(port.bits)
        return tuple(checks), tuple(np.diff(ends).tolist())

    def traverse(
        self, port: Port, t: Tensor, size: tuple[int, int], y: Tensor | None, z: Tensor | None
    ) -> tuple[tuple[int, ...], Tensor]:
        """As `SmallCodec.traverse`, date by date."""
        checks, found = zip(*self.dates(port, t, size, y, z))
        return checks, torch.cat(found)

    def dates(
        self, port: Port, t: Tensor, size: tuple[int, int], y: Tensor | None, z: Tensor | None
    ) -> Iterator[tuple[int, Tensor]]:
        """Codes a date at a time -> its check value, y_hat [1, M, h, w]."""
        entropy, arithmetic = self.exact(t.device)
        past: list[Date] = []
        for k in range(len(t)):
            own = (None if v is None else v[k : k + 1] for v in (y, z))
            code = PortCode(port, self.tables, arithmetic, *own, self.thrift)
            y_hat, date = entropy.traverse_after(past[-PAST:], code, t[k : k + 1].double(), size, arithmetic)
            past.append(date)
            yield code.frame_checks()[0], y_hat.float()
