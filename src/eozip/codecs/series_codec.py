"""Encoding and decoding with tec-tt-small: the dates of a chunk one after the other, each from those before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eozip.codecs.small_codec import PortCode, SmallCodec
from eozip.coder import Port
from eozip.networks.small_time import Date

PAST = 12  # dates that one looks back: bounds time and memory of long chunks


@dataclass(frozen=True)
class SeriesCodec(SmallCodec):
    """tec-tt-small as a `Codec`: one section per chunk, in which the dates follow each other."""

    def traverse(
        self, port: Port, t: Tensor, size: tuple[int, int], y: Tensor | None, z: Tensor | None
    ) -> tuple[tuple[int, ...], Tensor]:
        """As `SmallCodec.traverse`, date by date."""
        entropy, arithmetic = self.exact(t.device)
        past: list[Date] = []
        checks: list[int] = []
        found: list[Tensor] = []
        for k in range(len(t)):
            own = (None if v is None else v[k : k + 1] for v in (y, z))
            code = PortCode(port, self.tables, arithmetic, *own, self.thrift)
            y_hat, date = entropy.traverse_after(past[-PAST:], code, t[k : k + 1].double(), size, arithmetic)
            past.append(date)
            checks.extend(code.frame_checks())
            found.append(y_hat.float())
        return tuple(checks), torch.cat(found)
