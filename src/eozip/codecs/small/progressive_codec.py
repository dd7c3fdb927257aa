"""flextec-small: one stream for every rate, which may be cut behind any section.

The published FlexTEC sends a latent's channels token by token and forecasts the rest. Ours refines: plane p codes every
latent to a step half that of plane p - 1, and a section is some channels of one plane. The networks are tec-tt-small's, not
trained again: at plane p they run at the quality level whose step is that of the plane, and say with what mean and scale
the latent is to be expected; all that is coded is where in the interval known so far it lies.

    not seen yet        symbol of the mean's bin (ZERO either way) or of the bins beyond, one step wide
    in the mean's bin   near the mean of this plane, which knows more, or off it, and then on which side
    in another bin      lower or upper half

That the bin is laid around each plane's own mean, inside what is known, is what makes refinement cheap: in estimates on
one date of data/val the planes cost 5 to 12 % more bits than coding at once, laid around the first plane's mean 25 to
40 %. Whole cuts against tec-tt-small's bytes, which have thrift besides: results/series.md.

Dates follow each other inside a plane, as in `series_codec`: what a date is predicted from are earlier dates at the same
plane, group by group, so that no section needs a later one. A date without budget is forecast: every latent is its mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.base import Encoded
from eozip.codecs.budgets import budget_of, check_asked, check_stream
from eozip.codecs.small.image_codec import compare, padded, padded_size
from eozip.codecs.small.intervals import DateState, PlaneCode, SectionPort
from eozip.codecs.small.linear_entropy import rows
from eozip.codecs.small.native_grid import Placing, placings_by_pixels, put_on_grids, read_grids, send_grids
from eozip.codecs.small.networks import at_level
from eozip.codecs.small.refinement import Refinement
from eozip.codecs.small.series_codec import SeriesCodec
from eozip.codecs.small.series_walk import walked
from eozip.entropy.fixed_point import ExactArithmetic, grid_level
from eozip.entropy.range_coder import DecodePort, EncodePort, EstimatePort, Port
from eozip.entropy.tables import pack_tables
from eozip.errors import DesyncError

# Channel groups of every section, per plane; the finer ones begin where they first matter.
PLANES: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((0, 1),),
    ((0, 1),),
    ((0, 1),),
    ((0, 1), (2,)),
    ((0, 1), (2,), (3,)),
    ((0, 1, 2), (3,)),
    ((0, 1, 2), (3,)),
)
SECTIONS = sum(len(plane) for plane in PLANES)
FIRST_LEVEL = 0.2  # quality level of plane 0
MIDDLE = 2.5  # level whose gains all planes share, up to a power of two
CHECK_TABLES = pack_tables([np.full(256, 1 / 256)], [0])
CHECK_ROW = np.zeros(1, np.int64)


@dataclass(frozen=True)
class FlexCodec(SeriesCodec):
    """flextec-small as a `Codec`.

    Attributes:
        refinement: tables of intervals.
    """

    refinement: Refinement | None = None  # dataclasses want a default here; `flex_files` always gives one
    can_skip, has_budgets = False, True  # a date without budget is its way to spend nothing

    @torch.inference_mode()
    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """float32 DN [T, C, H, W] > the sections that a quality of 0 to 100 asks for, of `SECTIONS`."""
        return self.encode_budgets(x, [sections_of(quality)] * len(x))

    @torch.inference_mode()
    def encode_budgets(self, x: np.ndarray, budgets: Sequence[int]) -> Encoded:
        """The same with so many sections for each date: 0 to `SECTIONS`, at least 1 for the first date.

        Raises:
            InputError: budgets out of range, or another number of them than of dates.
        """
        check_asked(budgets, len(x), SECTIONS, "sections")
        ports = tuple(EncodePort() for _ in range(max(budgets)))
        checks, _, bits = self.walk(ports, budgets, x, x.shape)
        return Encoded(tuple(port.finish() for port in ports), checks, tuple(budgets), bits)

    @torch.inference_mode()
    def estimate_sections(self, x: np.ndarray, budgets: Sequence[int]) -> tuple[float, ...]:
        """Bits of each section that `encode_budgets` would write: the same walk with counting ports.

        Raises:
            InputError: as `encode_budgets`.
        """
        check_asked(budgets, len(x), SECTIONS, "sections")
        ports = tuple(EstimatePort() for _ in range(max(budgets)))
        self.walk(ports, budgets, x, x.shape)
        return tuple(port.bits for port in ports)

    def estimate(self, x: np.ndarray, quality: float) -> float:
        """Bits that `encode` would write."""
        return sum(self.estimate_sections(x, [sections_of(quality)] * len(x)))

    @torch.inference_mode()
    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """All sections, or the first few > float32 DN [T, C, H, W]; the budgets of the stream count.

        Raises:
            DesyncError: symbols of a date differ from the encoded ones.
            FormatError: sections that no encoder writes, or another number of dates.
        """
        check_stream(coded, shape[0], SECTIONS, "sections")
        ports = tuple(DecodePort(section) for section in coded.sections)
        checks, x, _ = self.walk(ports, coded.budgets, None, shape)
        if len(ports) == max(coded.budgets):
            compare(coded.checks, checks)
        for port in ports:
            port.finish()
        return x

    def walk(
        self, ports: Sequence[Port], budgets: Sequence[int], x: np.ndarray | None, shape: Sequence[int]
    ) -> tuple[tuple[int, ...], np.ndarray, tuple[float, ...]]:
        """Plane by plane, date by date. -> check values, pixels (decoding only), bits of every date (encoding only)."""
        frames, _, height, width = shape
        size = padded_size(shape)
        placings = self.placings(ports[0], x, shape)
        y = None if x is None else self.analysed(x)
        states = [DateState() for _ in range(frames)]
        spent = np.zeros(frames)
        spent[0] = bits_of(ports)
        section = plane = 0
        while section < len(ports):
            y_hat = self.one_plane(plane, section, ports, budgets, states, y, size, spent)
            section, plane = section + len(PLANES[plane]), plane + 1
        pixels = np.empty(0) if x is not None else self.pixels(y_hat, plane - 1, height, width, placings)
        return tuple(state.check for state in states), pixels, tuple(spent.tolist())

    def placings(self, port: Port, x: np.ndarray | None, shape: Sequence[int]) -> list[Placing]:
        """The native grids: found where x is given, else read."""
        if x is None:
            return read_grids(port, self.tables, self.groups, shape)
        placings = placings_by_pixels(torch.from_numpy(x), self.groups)
        send_grids(port, self.tables, self.groups, placings)
        return placings

    def one_plane(
        self,
        plane: int,
        first: int,
        ports: Sequence[Port],
        budgets: Sequence[int],
        states: Sequence[DateState],
        y: Tensor | None,
        size: tuple[int, int],
        spent: np.ndarray,
    ) -> Tensor:
        """Codes the sections first, first + 1, ... of a plane, as far as they are there -> y_hat [T, M, h, w]."""
        entropy, arithmetic = self.exact(torch.device("cpu"))
        t = plane_level(plane, self.model.config.lmbda)
        steps = None if y is None else y * self.gain(plane)
        # what a plane expects of groups that it does not code, only pixels ask for
        is_shown = y is None and first + len(PLANES[plane]) >= len(ports)
        sections = PLANES[plane] if is_shown else PLANES[plane][: len(ports) - first]
        there = [range(first, min(first + len(sections), len(ports), budget)) for budget in budgets]
        codes = (
            self.plane_code(
                plane,
                state,
                [SectionPort(ports[s], s, state) for s in there[k]],
                arithmetic,
                None if steps is None else steps[k : k + 1],
            )
            for k, state in enumerate(states)
        )
        found, ends = [], [bits_of(ports)]
        dates = walked(entropy, codes, t, size, arithmetic, sections[-1][-1] + 1, is_shown)
        for k, (code, y_hat) in enumerate(dates):
            for s in there[k]:
                check_section(k, code.state.settle(s), ports[s])
            found.append(y_hat)
            ends.append(bits_of(ports))
        spent += np.diff(ends)
        return torch.cat(found)

    def plane_code(
        self,
        plane: int,
        state: DateState,
        ports: Sequence[SectionPort],
        arithmetic: ExactArithmetic,
        steps: Tensor | None,
    ) -> PlaneCode:
        """One date at one plane: ports of the sections that it has there; y in steps [1, M, h, w] when encoding."""
        groups = {g: port for part, port in zip(PLANES[plane], ports) for g in part}
        z = None if steps is None or not ports else rows(self.model.entropy.hyper_latent(steps))
        return PlaneCode(
            plane,
            state,
            groups,
            ports[0] if ports else None,
            self.refinement,
            self.tables,
            arithmetic,
            None if steps is None else rows(steps),
            z,
        )

    def analysed(self, x: np.ndarray) -> Tensor:
        """Latents [T, M, h, w] before gains."""
        t = torch.full((len(x),), MIDDLE)
        return self.model.g_a(self.model.standardise(padded(torch.from_numpy(x))), t)

    def gain(self, plane: int) -> Tensor:
        """[M, 1, 1]: twice that of the plane before."""
        middle = at_level(self.model.log_gain, torch.tensor([MIDDLE]))[0]
        away = (plane_level(plane, self.model.config.lmbda) - MIDDLE) / levels_per_plane(
            self.model.config.lmbda
        )
        return (middle + math.log(2) * away).exp()

    def pixels(
        self, y_hat: Tensor, plane: int, height: int, width: int, placings: Sequence[Placing]
    ) -> np.ndarray:
        t = plane_level(plane, self.model.config.lmbda).expand(len(y_hat))
        x = self.model.restore(self.model.g_s(y_hat / self.gain(plane), t))[:, :, :height, :width]
        put_on_grids(x, placings)
        return x.numpy()


def bits_of(ports: Sequence[Port]) -> float:
    """Bits counted or written so far; 0 when decoding."""
    return sum(port.bits for port in ports if not isinstance(port, DecodePort))


def check_section(date: int, check: int, port: Port) -> None:
    """A byte at the end of a date's part of a section: a cut stream has no other check.

    Raises:
        DesyncError: the decoded symbols are not the encoded ones.
    """
    got = int(port.code(np.array([check & 0xFF], np.int32), CHECK_ROW, CHECK_TABLES)[0])
    if got != check & 0xFF:
        raise DesyncError(
            f"date {date}: symbols differ from the encoded ones; they are damaged, or this machine computes "
            "otherwise than the one that encoded: decode there, or encode again"
        )


def levels_per_plane(lmbda: object) -> float:
    """Quality levels between two planes: lambda grows fourfold, so that the step halves."""
    first, second = (float(lmbda(torch.tensor(float(t)))) for t in (0, 1))
    return math.log(4) / math.log(second / first)


def plane_level(plane: int, lmbda: object) -> Tensor:
    """Quality level [1] of a plane, on its grid."""
    return torch.tensor([grid_level(FIRST_LEVEL + plane * levels_per_plane(lmbda))])


def sections_of(quality: float) -> int:
    """Quality 0 to 100 > sections, 1 to `SECTIONS`, in equal steps."""
    return budget_of(quality, SECTIONS)
