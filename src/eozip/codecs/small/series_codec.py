"""Encoding and decoding with tec-tt-small: the dates of a chunk one after the other, each from those before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eozip.codecs import skip_mask
from eozip.codecs.base import Encoded
from eozip.codecs.small.forecast import forecast
from eozip.codecs.small.image_codec import PortCode, SmallCodec, padded
from eozip.codecs.small.series_walk import grown, walked
from eozip.entropy.range_coder import EncodePort, EstimatePort, Port


@dataclass(frozen=True)
class SeriesCodec(SmallCodec):
    """tec-tt-small as a `Codec`: one section per chunk, in which the dates follow each other.

    Skipped latent cells come back as what the network expects there.
    """

    can_skip = True

    @torch.inference_mode()
    def encode_without(self, x: np.ndarray, quality: float, dropped: np.ndarray) -> Encoded:
        """As `encode`, but spends nothing on some cells.

        Args:
            x: float32 DN [T, C, H, W]; anything finite where dropped.
            quality: 0 to 100.
            dropped: bool [T, ceil(H / 8), ceil(W / 8)], a flag for every cell of 8 x 8 pixels.

        Raises:
            InputError: `dropped` is of another shape.
        """
        skip_mask.check_cells("dropped", dropped, x.shape)
        port = EncodePort()
        checks, bits = self.send(port, x, quality, dropped)
        return Encoded((port.finish(),), checks, bits=bits, skip=dropped)

    @torch.inference_mode()
    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """Decodes to float32 DN [T, C, H, W].

        Raises:
            DesyncError: a frame's symbols are not those that were encoded.
            FormatError: not exactly one section, or bytes that no encoder writes.
        """
        self.check_sections(coded)
        return self.read(coded, shape, quality, coded.skip)

    def send(
        self,
        port: EncodePort | EstimatePort,
        x: np.ndarray,
        quality: float,
        dropped: np.ndarray | None = None,
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """-> check values, bits of every date."""
        t = self.level(quality, len(x))
        y = self.model.analyse(self.model.standardise(padded(torch.from_numpy(x))), t)
        ends, checks, found = [port.bits], [], []
        z = self.model.entropy.hyper_latent(y)
        for check, y_hat in self.dates(port, t, tuple(y.shape[2:]), y, z, dropped):
            checks.append(check)
            found.append(y_hat)
            ends.append(port.bits)
        hidden = None if dropped is None else skip_mask.pixels_of(dropped, x.shape[2:])
        rest = self.send_end(port, x, torch.cat(found), quality, hidden)
        return tuple(checks), tuple((np.diff(ends) + rest).tolist())

    def traverse(
        self,
        port: Port,
        t: Tensor,
        size: tuple[int, int],
        y: Tensor | None,
        z: Tensor | None,
        dropped: np.ndarray | None = None,
    ) -> tuple[tuple[int, ...], Tensor]:
        """As `SmallCodec.traverse`, date by date."""
        checks, found = zip(*self.dates(port, t, size, y, z, dropped))
        return checks, torch.cat(found)

    def dates(
        self,
        port: Port,
        t: Tensor,
        size: tuple[int, int],
        y: Tensor | None,
        z: Tensor | None,
        dropped: np.ndarray | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Codes a date at a time -> its check value, y_hat [1, M, h, w]."""
        entropy, arithmetic = self.exact(t.device)
        left_out = None if dropped is None else grown(dropped, size).flatten(1)
        codes = (
            PortCode(
                port,
                self.tables,
                arithmetic,
                None if y is None else y[k : k + 1],
                None if z is None else z[k : k + 1],
                self.thrift,
                None if left_out is None else left_out[k],
            )
            for k in range(len(t))
        )
        for code, y_hat in walked(entropy, codes, t[:1], size, arithmetic):
            yield code.frame_checks()[0], y_hat

    def forecast(
        self, x: np.ndarray, hidden: np.ndarray, quality: float, given: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `eozip.codecs.small.forecast.forecast`."""
        return forecast(self, x, hidden, quality, given)
