"""Predictors by name."""

from __future__ import annotations

from collections.abc import Callable

from eozip.codecs import registry
from eozip.codecs.base import Codec
from eozip.errors import InputError, UnknownCodecError
from eozip.inpaint.baselines import Harmonic, LeastCloudyFilled, LinearInTime, MeanClear, NearestClear
from eozip.inpaint.filled import WeightedFilled
from eozip.inpaint.kriging import Kriging
from eozip.inpaint.predict import Predictor
from eozip.inpaint.regression import Regression

DEFAULT = "regression"
WHY = "the lowest error of all predictors here, see results/inpainting.json"

_CLOSED: dict[str, Callable[[], Predictor]] = {
    "regression": Regression,
    "least-cloudy-filled": LeastCloudyFilled,
    "nearest-clear": NearestClear,
    "mean-clear": MeanClear,
    "weighted-filled": WeightedFilled,
    "kriging": Kriging,
    "linear-in-time": LinearInTime,
    "harmonic": Harmonic,
}
NAMES = tuple(_CLOSED)


def resolve_predictor(asked: str | Predictor | Codec | None) -> Predictor:
    """The predictor of a name, of a codec, of itself, or of nothing: the default.

    Raises:
        InputError: see `get_predictor`.
    """
    if asked is None or isinstance(asked, str):
        return get_predictor(DEFAULT if asked is None else asked)
    if isinstance(asked, Predictor):
        return asked
    if not hasattr(asked, "id"):
        raise InputError(
            f"predictor: expected a name, a predictor, or a codec that forecasts, got {asked!r:.80}; names are "
            f"{', '.join(NAMES)}"
        )
    return _learned(asked)


def get_predictor(name: str) -> Predictor:
    """Find a predictor by its name.

    Args:
        name: one of `NAMES`; or a codec that forecasts: its id or short name, or a checkpoint as `eozip.load`
            takes it (a path, or "owner/name@lambda-5"). Codecs import torch.

    Raises:
        InputError: unknown, or a codec that cannot forecast.
        WeightsError: a checkpoint that is not there or does not fit.
    """
    if name in _CLOSED:
        return _CLOSED[name]()
    try:
        codec = registry.get(registry.resolve(name))
    except UnknownCodecError as error:
        raise InputError(
            f"predictor: expected one of {', '.join(NAMES)}, or a codec that forecasts, got {name!r} ({error})"
        ) from error
    return _learned(codec)


def _learned(codec: Codec) -> Predictor:
    from eozip.inpaint.learned import predictor_of  # imports torch

    return predictor_of(codec)
