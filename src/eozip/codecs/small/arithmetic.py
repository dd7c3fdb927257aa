"""The operations of the entropy networks that training and coding do differently.

Training uses plain floats. Coding uses `eozip.entropy.fixed_point`: the same networks on grids where every sum is exact, so
that no machine can compute another symbol. The networks call these names and know neither.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Arithmetic(Protocol):
    """Where a number goes to its grid. Latents, means and spreads are in quantisation steps."""

    def squash(self, v: Tensor) -> Tensor: ...  # sign(v) ln(1 + |v|) of latents: an activation

    def log(self, v: Tensor) -> Tensor: ...  # of placed v > 0: a log scale

    def positive(self, v: Tensor) -> Tensor: ...  # a stored logarithm to its number

    def settle(self, v: Tensor) -> Tensor: ...  # an activation

    def fine(self, v: Tensor) -> Tensor: ...  # a log scale, bias or factor, a sum that is added to others

    def place(self, v: Tensor) -> Tensor: ...  # a latent, mean or spread

    def coarse(self, v: Tensor) -> Tensor: ...  # latents as inputs of a large sum

    def wide(self, v: Tensor) -> Tensor: ...  # to the carrier for sums that need more bits


class FloatArithmetic:
    """Plain floats: training, and the rate that the exact form is measured against."""

    def squash(self, v: Tensor) -> Tensor:
        return v.sign() * v.abs().log1p()

    def log(self, v: Tensor) -> Tensor:
        return v.log()

    def positive(self, v: Tensor) -> Tensor:
        return v.exp()

    def settle(self, v: Tensor) -> Tensor:
        return v

    def fine(self, v: Tensor) -> Tensor:
        return v

    def place(self, v: Tensor) -> Tensor:
        return v

    def coarse(self, v: Tensor) -> Tensor:
        return v

    def wide(self, v: Tensor) -> Tensor:
        return v
