"""The closing fit: per date, a linear map from the decoded picture to a better one, which the encoder fits and sends.

    x_hat > bands, what is lost by smoothing them once, twice, three times, with a past the bands of the date before, and
            bands times a soft class
          > made orthonormal over the date
    x_hat + symbols * step @ those functions

A network learns what scenes have in common. What this one scene has besides - how its bands go together, how sharp it
is - takes a few hundred numbers, and saves 8 to 15 % of the bits at equal PSNR (docs/training-log.md). The functions
follow from x_hat, which a decoder has too. They are orthonormal, so that every coefficient can be quantised by itself,
with the step that the latents have. Sums over a date are taken over every fifth pixel.

Pixels, not symbols, depend on floats here; rows and symbols are integers as everywhere.

Source: adaptive loop filters (Tsai et al. 2013, "Adaptive loop filtering for video coding"). Other than there the map
goes across bands, and its functions are orthogonal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.rdoq import BITS_PER_SQUARED_STEP, thrifty
from eozip.entropy.range_coder import Port, Tables
from eozip.errors import FormatError, InputError

SMOOTHINGS = 3
CHOICES = 16  # 0: none of a kind's coefficients is sent; others: in row choice * STRIDE, scales 0.08 to 200
CHOICE_ROW, STRIDE = 48, 6  # the choices' own row, of scale 4; distance of the rows to choose from
ESCAPE_BITS = 12  # about what an escaped coefficient costs besides its escape
ROUNDS = 2  # of choosing a row, then symbols
RIDGE = 0.25  # DN**2: functions far weaker are noise, which other machines compute otherwise
# of so many pixels every fifth is enough; an odd distance meets every phase of coarse bands
SAMPLE, MANY = 5, 1 << 14
DARK = 200  # DN: sums of two bands below it say nothing of their ratio


@dataclass(frozen=True, eq=False)
class Basis:
    """Functions of one decoded date.

    Attributes:
        parts: float32 [C, N] each, F rows in all, not yet orthogonal.
        sample: float64 [F, n], some of their pixels, the mean taken off.
        mean: float64 [F, 1], that mean.
        factor: float64 [F, F], lower triangular; inv(factor) @ (parts - mean) is orthonormal up to sqrt(N).
    """

    parts: tuple[Tensor, ...]
    sample: Tensor
    mean: Tensor
    factor: Tensor

    def coefficients(self, error: Tensor) -> Tensor:
        """Of what is to be added, [C, N] DN -> float64 [C, 1 + F], in DN of an orthonormal function; the constant first."""
        wanted = sampled((error,))
        products = self.sample @ wanted.T / wanted.shape[1]
        solved = torch.linalg.solve_triangular(self.factor, products, upper=False).T
        return torch.cat([wanted.mean(1, keepdim=True), solved], 1) * math.sqrt(error.shape[1])

    def sum(self, coefficients: Tensor) -> Tensor:
        """The inverse: float64 [C, 1 + F] -> float32 [C, N] DN."""
        scaled = coefficients / math.sqrt(self.parts[0].shape[1])
        weights = torch.linalg.solve_triangular(self.factor, scaled[:, 1:], upper=False, left=False)
        total = (scaled[:, :1] - weights @ self.mean).float().repeat(1, self.parts[0].shape[1])
        for own, part in zip(weights.float().split(len(weights), 1), self.parts, strict=True):
            total.addmm_(own, part)
        return total


@dataclass(frozen=True, eq=False)
class Fit:
    """What was sent for one date: float64 coefficients [C, 1 + F], DN of orthonormal functions."""

    basis: Basis
    coefficients: Tensor

    def applied(self, x_hat: Tensor) -> Tensor:
        """The date [C, H, W] whose basis this is, with its fit."""
        return self.basis.sum(self.coefficients).reshape(x_hat.shape).add_(x_hat)


def basis_of(x_hat: Tensor, past: Tensor | None, classes: tuple[int, ...]) -> Basis | None:
    """Functions of a decoded date.

    Args:
        x_hat: [C, H, W] DN.
        past: the date before, likewise.
        classes: two bands, by which pixels are told apart; or none.

    Returns:
        None where numbers are not finite, which takes damaged bytes.
    """
    parts, smooth = [x_hat], x_hat
    for _ in range(SMOOTHINGS):
        rough, smooth = smooth, smoothed(smooth)
        parts.append(rough - smooth)
    parts += [] if past is None else [past]
    parts += [x_hat * soft_class(x_hat, *classes)] if classes else []
    flat = tuple(part.flatten(1) for part in parts)
    sample = sampled(flat)
    mean = sample.mean(1, keepdim=True)
    sample -= mean
    gram = sample @ sample.T / sample.shape[1]
    factor, failed = torch.linalg.cholesky_ex(gram + RIDGE * torch.eye(len(gram), dtype=gram.dtype))
    return None if int(failed) or not bool(factor.isfinite().all()) else Basis(flat, sample, mean, factor)


def soft_class(x: Tensor, a: int, b: int) -> Tensor:
    """From -1 to 1 by the normalised difference of two bands, [H, W]: with near infrared and red, bare land to plants."""
    index = (x[a] - x[b]) / (x[a] + x[b]).clamp_min(DARK)
    away = index - index.mean()
    return torch.tanh(away / (away.square().mean().sqrt() + 1e-3))


def sampled(parts: tuple[Tensor, ...]) -> Tensor:
    """float32 [., N] each -> float64 [F, n], which keeps the weak directions of products."""
    stride = SAMPLE if parts[0].shape[1] >= MANY else 1
    return torch.cat([part[:, ::stride] for part in parts]).double()


def smoothed(x: Tensor) -> Tensor:
    """Means of 3 x 3 pixels, [C, H, W]; the border is repeated."""
    return three(three(x, 1), 2).div_(9)


def three(x: Tensor, axis: int) -> Tensor:
    """Sums of each pixel and its two neighbours along an axis."""
    size = x.shape[axis]
    total = x.clone()
    for here, there in ((1, 0), (0, 1)):
        total.narrow(axis, here, size - 1).add_(x.narrow(axis, there, size - 1))
    for end in (0, size - 1):
        total.narrow(axis, end, 1).add_(x.narrow(axis, end, 1))
    return total


def kinds(bands: int, more: int) -> Iterator[slice]:
    """Columns of the coefficients of each kind: the constant, the bands, details of each size, and so many more."""
    edges = range(1, 2 + (1 + SMOOTHINGS + more) * bands, bands)
    return (slice(*edge) for edge in pairwise([0, *edges]))


def send_fit(
    port: Port,
    tables: Tables,
    x: Tensor,
    x_hat: Tensor,
    step: float,
    past: Tensor | None,
    classes: tuple[int, ...],
) -> Fit:
    """Fits one date, and codes what is worth its bits.

    Args:
        port: counts or writes.
        tables: of the codec.
        x: pixels [C, H, W], float32 DN.
        x_hat: the same decoded; may be rougher than the decoder's, which costs a little quality and no agreement.
        step: of orthonormal coefficients, DN.
        past: the date before with its fit, likewise.
        classes: see `basis_of`.
    """
    basis = basis_of(x_hat, past, classes)
    if basis is None:
        raise InputError(
            "closing fit: pixels of this date are too far out of range; expected DN of about 0..20,000"
        )
    wanted = (basis.coefficients((x - x_hat).flatten(1)) / step).numpy()
    sent = np.zeros_like(wanted)
    for kind in kinds(len(x), (past is not None) + bool(classes)):
        choice, symbols = chosen(wanted[:, kind].ravel(), tables)
        port.code(np.array([choice - CHOICES // 2], np.int32), np.array([CHOICE_ROW]), tables)
        if choice:
            port.code(symbols, np.full(len(symbols), choice * STRIDE), tables)
            sent[:, kind] = symbols.reshape(len(x), -1)
    return Fit(basis, torch.from_numpy(sent * step))


def chosen(wanted: np.ndarray, tables: Tables) -> tuple[int, np.ndarray]:
    """What pays best, error counted, for coefficients [n] in steps -> choice, symbols; (0, .) where nothing pays."""
    nearest = np.clip(np.round(wanted), -(2**15), 2**15).astype(np.int32)
    symbols = nearest
    for _ in range(ROUNDS):
        choice = 1 + int(np.argmin(costs(symbols, tables)))
        rows = np.full(len(wanted), choice * STRIDE)
        symbols = thrifty(nearest, wanted, rows, tables, BITS_PER_SQUARED_STEP)
    saved = BITS_PER_SQUARED_STEP * float(np.square(wanted).sum() - np.square(wanted - symbols).sum())
    return (choice, symbols) if saved > costs(symbols, tables)[choice - 1] else (0, symbols)


def costs(symbols: np.ndarray, tables: Tables) -> np.ndarray:
    """Bits of symbols [n] under the row of each choice but 0; an escape counts as a fixed number, enough to choose by."""
    rows = STRIDE * np.arange(1, CHOICES)[:, None]
    entry, escape = symbols - tables.first[rows], tables.size[rows] - 1
    is_inside = (entry >= 0) & (entry < escape)
    bits = tables.bits[rows, np.where(is_inside, entry, escape)]
    return (bits + np.where(is_inside, 0, ESCAPE_BITS)).sum(1)


def read_fit(
    port: Port,
    tables: Tables,
    x_hat: Tensor,
    step: float,
    past: Tensor | None,
    classes: tuple[int, ...],
) -> Tensor:
    """What `send_fit` coded, applied: one date [C, H, W] -> the same, better.

    Raises:
        FormatError: bytes that no encoder writes.
    """
    columns = list(kinds(len(x_hat), (past is not None) + bool(classes)))
    sent = np.zeros((len(x_hat), columns[-1].stop))
    for kind in columns:
        choice = int(port.code(None, np.array([CHOICE_ROW]), tables)[0]) + CHOICES // 2
        if not 0 <= choice < CHOICES:
            raise FormatError(
                f"closing fit: expected a choice of 0..{CHOICES - 1}, got {choice}; the bytes are damaged"
            )
        if choice:
            part = sent[:, kind]
            part[:] = port.code(None, np.full(part.size, choice * STRIDE), tables).reshape(part.shape)
    if not sent.any():
        return x_hat
    basis = basis_of(x_hat, past, classes)
    if basis is None:
        raise FormatError("closing fit: sent for a picture that is not finite; the bytes are damaged")
    return Fit(basis, torch.from_numpy(sent * step)).applied(x_hat)
