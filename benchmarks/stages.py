"""Where the time of a `small` codec goes: analysis, entropy model, coder, synthesis, and the rest of the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from eozip.entropy import range_coder

REST = "rest"  # checks, masks, padding, headers, rounding


class Stopwatch:
    """Seconds by stage; time in an inner stage does not count for the outer one. For one thread at a time.

    Attributes:
        seconds: stage > seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack = [REST]
        self._since = time.perf_counter()

    def restart(self) -> None:
        """Forgets everything and starts with `REST`."""
        self.seconds, self._stack, self._since = {}, [REST], time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Seconds by stage since `restart`."""
        self._charge()
        return dict(self.seconds)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time charged to a stage."""

        def wrapper(*arguments: Any, **named: Any) -> Any:
            self._charge()
            self._stack.append(stage)
            try:
                return function(*arguments, **named)
            finally:
                self._charge()
                self._stack.pop()

        return wrapper

    def _charge(self) -> None:
        now = time.perf_counter()
        stage = self._stack[-1]
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


def offers_stages(codec: Any) -> bool:
    """Whether a codec has the parts that `watched` times."""
    model = getattr(codec, "model", None)
    return all(hasattr(model, name) for name in ("analyse", "synthesise", "g_a", "g_s")) and hasattr(
        model, "entropy"
    )


@contextmanager
def watched(codec: Any, more: Sequence[tuple[Any, str, str]] = ()) -> Iterator[Stopwatch]:
    """Times the stages of a codec for which `offers_stages`, while inside.

    "g_a" and "g_s" are the transforms; "entropy model" is h_a, the networks that predict, table look-up and
    quantisation; "coder" is the range coder alone; "rest" is what the API does around them.

    Args:
        codec: loaded.
        more: owner, function and stage of what else is to be timed, such as reading and writing files.
    """
    watch = Stopwatch()
    with ExitStack() as stack:
        for owner, name, stage in [*_parts(codec), *more]:
            if hasattr(owner, name):
                stack.enter_context(mock.patch.object(owner, name, watch.timed(stage, getattr(owner, name))))
        yield watch


def _parts(codec: Any) -> list[tuple[Any, str, str]]:
    """Owner, function and stage; a codec has those of its own traversal alone."""
    entropy = codec.model.entropy
    return [
        (codec.model, "analyse", "g_a"),
        (codec.model, "synthesise", "g_s"),
        (codec.model.g_a, "forward", "g_a"),  # flextec-small: its gains are its own
        (codec.model.g_s, "forward", "g_s"),
        (entropy, "hyper_latent", "entropy model"),
        (entropy, "traverse", "entropy model"),
        (entropy, "traverse_after", "entropy model"),  # tec-tt-small: a date
        (type(codec), "walk", "entropy model"),  # flextec-small: all planes
        (range_coder.EncodePort, "code", "coder"),
        (range_coder.EncodePort, "finish", "coder"),
        (range_coder.DecodePort, "code", "coder"),
        (range_coder.DecodePort, "finish", "coder"),
    ]
