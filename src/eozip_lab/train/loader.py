"""Batches, read and augmented ahead of the training step in background threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from eozip_lab.train.augment import Augment, augmented
from eozip_lab.train.data import Draw, Source
from eozip_lab.train.recipe import Recipe
from eozip_lab.train.series import augmented_series

_AHEAD = 3  # batches per worker that may wait


def turns(weights: Sequence[int]) -> tuple[int, ...]:
    """Source of every step of a cycle; each has `weight` turns, spread evenly. (1, 1) -> (0, 1)."""
    order = [((i + 0.5) / w, k) for k, w in enumerate(weights) for i in range(w)]
    return tuple(k for _, k in sorted(order))


def batch(source: Source, draw: Draw, rng: np.random.Generator, count: int, augment: Augment) -> np.ndarray:
    """float32 [count, C, s, s], or [count, T, C, s, s] of series: augmented digital numbers."""
    crops = source.crops(draw, rng)
    return np.stack([changed(next(crops), rng, augment) for _ in range(count)])


def changed(crop: np.ndarray, rng: np.random.Generator, augment: Augment) -> np.ndarray:
    return augmented(crop, rng, augment) if crop.ndim == 3 else augmented_series(crop, rng, augment)


class _Feed:
    """Batch n of a recipe for n = first, first + 1, ...; each depends on (seed, n) alone."""

    def __init__(self, recipe: Recipe, opening: Callable[[], list[Source]]) -> None:
        self._recipe, self._opening = recipe, opening
        self._cycle = turns([source.weight for source in recipe.data])
        self._local = threading.local()
        self._opened: list[Source] = []
        self._first: list[Source] = []  # of the thread that opened first
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(recipe.workers, thread_name_prefix="eozip-feed")
        self._waiting: deque[Future[Tensor]] = deque()

    def batches(self, first: int) -> Iterator[Tensor]:
        """Endless batches float32 [B, C, s, s]; errors of the workers are raised here."""
        step = first
        while True:
            while len(self._waiting) < _AHEAD * self._recipe.workers:
                self._waiting.append(self._pool.submit(self._batch, step))
                step += 1
            yield self._waiting.popleft().result()

    def _batch(self, step: int) -> Tensor:
        k = self._cycle[step % len(self._cycle)]
        draw = Draw(self._recipe.seed, step)
        count = self._recipe.data[k].batch
        return torch.from_numpy(batch(self._sources()[k], draw, draw.rng(), count, self._recipe.augment))

    def _sources(self) -> list[Source]:
        """This thread's own sources: open files are not shared between threads, what was read of them may be."""
        if not hasattr(self._local, "sources"):
            sources = self._opening()
            with self._lock:
                self._opened += sources
                for source, first in zip(sources, self._first):
                    source.share(first)
                self._first = self._first or sources
            self._local.sources = sources
        return self._local.sources

    def close(self) -> None:
        """Stop the workers, then close their files."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        while self._opened:
            self._opened.pop().close()


@contextmanager
def feeding(recipe: Recipe, opening: Callable[[], list[Source]]) -> Iterator[_Feed]:
    """A `_Feed` that is closed at the end."""
    feed = _Feed(recipe, opening)
    try:
        yield feed
    finally:
        feed.close()
