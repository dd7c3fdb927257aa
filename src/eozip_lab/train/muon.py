"""Muon: weight matrices move along the orthogonalised momentum of their gradients, everything else by AdamW.

Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024,
https://kellerjordan.github.io/posts/muon/; the size of a step is that of J. Liu et al., Muon is scalable for LLM
training, https://arxiv.org/abs/2502.16982. `torch.optim.Muon` takes only 2-D parameters, and most of ours are kernels
[out, in, k, k]: it would need flat aliases that share their memory, and it came with torch 2.9 while this package runs
from 2.4. On 2-D parameters both make the same step; a test compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95
_ITERATIONS = 5
_QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # steep at 0: singular values reach 0.7 .. 1.2 in five iterations, never exactly 1
_TINY = 1e-7
_ADAM_RMS = 0.2  # root mean square of an Adam step in units of its rate: one rate then suits both


class _Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for kernels and matrices; no weight decay.

    Args:
        params: parameters [out, ...] of 2 or more dimensions, taken as [out, rest], or groups of them.
        lr: root mean square of a step, in units of 0.2.
        momentum: decay of the sum of gradients.

    Raises:
        ValueError: a parameter of fewer dimensions.
    """

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = _MOMENTUM) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        shapes = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.dim() < 2]
        if shapes:
            raise ValueError(
                f"expected parameters of 2 or more dimensions, got {shapes[0]}; give it to AdamW"
            )

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients that are there."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group["lr"], group["momentum"])

    def _move(self, p: Tensor, grad: Tensor, lr: float, momentum: float) -> None:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer = state["momentum_buffer"].mul_(momentum).add_(grad)
        update = _orthogonalised(grad.add(buffer, alpha=momentum).flatten(1))
        p.add_(update.view_as(p), alpha=-lr * _ADAM_RMS * max(update.shape) ** 0.5)


def _orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all 1, roughly: they come out between about 0.7 and 1.2.

    Args:
        matrix: float32 [n, m].

    Returns:
        float32 [n, m]; zero stays zero.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix) / matrix.norm().clamp_min(_TINY)
    x = x.bfloat16()  # rounding is far below what five iterations leave
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if is_tall else x).float()


class Together:
    """Several optimisers as one, as far as training uses one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; setting a value in one sets it in its optimiser."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """One step of every part."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: other parts or parameters.
        """
        if len(state["parts"]) != len(self.parts):
            raise ValueError(f"expected {len(self.parts)} optimisers, got {len(state['parts'])}")
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


def muon_and_adamw(groups: Sequence[dict[str, Any]], betas: tuple[float, float]) -> Together:
    """Muon over the groups marked `is_matrix`, AdamW without weight decay over the others.

    Args:
        groups: as `parameter_groups` gives them; at least one is marked.
        betas: of AdamW.
    """
    matrices, others = ([g for g in groups if g["is_matrix"] is wanted] for wanted in (True, False))
    adamw = [torch.optim.AdamW(others, betas=betas, weight_decay=0.0)] if others else []
    return Together([_Muon(matrices), *adamw])
