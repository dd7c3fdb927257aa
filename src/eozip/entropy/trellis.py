"""Trellis-coded quantisation: two quantisers of twice the spacing in turn, and a machine that says whose turn it is.

    quantiser 0     ... -4  -2   0   2   4 ...        2 n              of the symbol n, in spacings
    quantiser 1     ... -3  -1   0   1   3 ...        2 n - sign(n)

Which quantiser a value has follows from the parities of symbols before it, so the reader knows it, too; the encoder looks
for the path through all of them that costs least. It comes nearer to what rate-distortion theory allows than rounding to
the same values does: at equal error 4 to 5 % fewer bits.

Symbols of one call are sorted by rising table row, and dealt to **lanes** in turn, each with a machine of its own. A lane
has at most `LANE` symbols, so that numpy can walk all lanes together.

Source: Marcellin and Fischer, 1990 (trellis-coded quantisation); Joshi, Crump and Fischer, 1995 (entropy-coded, with 0 in
both quantisers); the machine is Ungerboeck's code of 16 states.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from eozip.entropy.range_coder import Tables

STATES = 16
LANE = 256
FARTHEST = 1 << 22  # symbols count no more than this
_FEEDBACK, _TURN = 9, 2  # Ungerboeck's polynomials 23 and 04, octal, less what a shift has


def width_of(count: int) -> int:
    """Lanes of a call of so many symbols: sorted symbol i belongs to lane i % width."""
    return max(1, -(-count // LANE))


def next_state(state: np.ndarray, parity: np.ndarray) -> np.ndarray:
    """The state after a symbol of this parity; a state's lowest bit says whose turn it is."""
    return (state >> 1) ^ (state & 1) * _FEEDBACK ^ parity * _TURN


def points(symbols: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Values of symbols in spacings, under quantiser 0 or 1 each."""
    return 2 * symbols - turns * np.sign(symbols)


def turns_of(parities: np.ndarray) -> np.ndarray:
    """Which quantiser each symbol of a call has.

    Args:
        parities: 0 or 1 of symbols [n] by rising row; 0 of escapes.

    Returns:
        [n] of 0 and 1.
    """
    width = width_of(len(parities))
    out = np.zeros(len(parities), np.int64)
    state = np.zeros(width, np.int64)
    for start in range(0, len(parities), width):
        now = parities[start : start + width]
        out[start : start + width] = state[: len(now)] & 1
        state[: len(now)] = next_state(state[: len(now)], now)
    return out


def turns_under(symbols: np.ndarray, rows: np.ndarray, tables: Tables) -> np.ndarray:
    """The same of symbols [n] of one call in any order, as `chosen` gives them."""
    order = np.argsort(rows, kind="stable")
    parities = np.where(np.abs(symbols) > -tables.first[rows], 0, symbols & 1)
    out = np.empty(len(rows), np.int64)
    out[order] = turns_of(parities[order])
    return out


@lru_cache(8)
def costs_of(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """What symbols cost, for `chosen`.

    Returns:
        float32 [2, R, 1 + largest reach + 1] bits of 0, 1, .. reach and then of the escape, and of 0, -1, ..; and the
        reaches, int32 [2, R].
    """
    reach = np.stack([tables.first + tables.size - 2, -tables.first])
    far = np.arange(int(reach.max()) + 2)
    signed = np.stack([far, -far])[:, None] - tables.first[:, None]
    entries = np.where(far <= reach[:, :, None], signed, tables.size[:, None] - 1)
    bits = np.take_along_axis(np.broadcast_to(tables.bits, (2, *tables.bits.shape)), entries, 2)
    return bits.astype(np.float32), reach.astype(np.int32)


def chosen(residual: np.ndarray, rows: np.ndarray, tables: Tables, thrift: float) -> np.ndarray:
    """The symbols of one call whose error and bits together are least, by Viterbi's algorithm.

    Effects on later predictions are not looked at.

    Args:
        residual: float32 [n], values in spacings.
        rows: [n] below R.
        tables: 2 R rows, those of quantiser 0 first.
        thrift: bits that a squared spacing of error is worth.

    Returns:
        int32 [n].
    """
    count, width = len(rows), width_of(len(rows))
    order = np.argsort(rows, kind="stable")
    best, symbols = _candidates(residual[order], rows[order].astype(np.int64), tables, np.float32(thrift))
    steps = -(-count // width)
    cost = np.full((width, STATES), np.inf, np.float32)
    cost[:, 0] = 0
    second = np.zeros((steps, width, STATES), bool)  # whether the second way into a state is the better one
    for step in range(steps):
        now = best[step * width : (step + 1) * width]
        one, other = (cost[: len(now), _BEFORE[:, k]] + now[:, _LABEL[:, k]] for k in range(2))
        second[step, : len(now)] = other < one
        cost[: len(now)] = np.minimum(one, other)
    out = np.empty(count, np.int32)
    state = cost.argmin(1)
    for step in reversed(range(steps)):
        here = slice(step * width, min(count, (step + 1) * width))
        lanes = np.arange(here.stop - here.start)
        own = state[: len(lanes)]
        way = second[step, lanes, own].astype(np.int64)
        out[order[here]] = symbols[here][lanes, _LABEL[own, way]]
        state[: len(lanes)] = _BEFORE[own, way]
    return out


def _candidates(
    residual: np.ndarray, rows: np.ndarray, tables: Tables, thrift: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Least costs and their symbols [n, 4] of quantiser 0 with parity 0 and 1, then of quantiser 1."""
    bits, reach = costs_of(tables)
    best = np.full((len(rows), 4), np.inf, np.float32)
    symbols = np.zeros((len(rows), 4), np.int32)
    far = np.fmin(np.abs(residual), np.float32(2 * FARTHEST))  # what is farther, or no number, would overflow
    side = (residual < 0).astype(np.int64)
    for turn in range(2):
        row = side, rows + turn * (reach.shape[1] // 2)
        base = np.floor((far + np.float32(turn)) * np.float32(0.5)).astype(np.int64)
        for size in (base - 1, base, base + 1, np.zeros_like(base)):
            beyond = size - reach[row]
            escapes = beyond > 0
            price = bits[*row, np.clip(size, 0, reach[row] + 1)]
            price = price + np.where(escapes, 2 * np.frexp(np.maximum(beyond, 1))[1] - 1, 0).astype(
                np.float32
            )
            error = far - (2 * size - turn * (size > 0)).astype(np.float32)
            cost = thrift * error * error + price
            for parity in range(2):
                label = 2 * turn + parity
                better = (cost < best[:, label]) & (np.where(escapes, 0, size & 1) == parity)
                better &= (size > 0) | (parity == 0)
                best[better, label] = cost[better]
                symbols[better, label] = size[better]
    return best, np.where(residual[:, None] < 0, -symbols, symbols)


def _ways() -> tuple[np.ndarray, np.ndarray]:
    """For each state the two that lead to it, and by which label (2 turn + parity): [16, 2] each."""
    before, label = np.empty((2, STATES, 2), np.int64)
    found = [0] * STATES
    for state in range(STATES):
        for parity in range(2):
            to = int(next_state(np.array(state), np.array(parity)))
            before[to, found[to]], label[to, found[to]] = state, 2 * (state & 1) + parity
            found[to] += 1
    return before, label


_BEFORE, _LABEL = _ways()
