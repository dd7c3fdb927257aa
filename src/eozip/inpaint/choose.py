"""Predictors by name."""

from __future__ import annotations

from collections.abc import Callable

from eozip.errors import InputError, UnknownCodecError
from eozip.inpaint.baselines import Harmonic, LeastCloudy, LinearInTime, MeanClear, NearestClear
from eozip.inpaint.predict import Predictor
from eozip.inpaint.regression import Regression, WeightedFilled

DEFAULT = "regression"
WHY = "the lowest error of all predictors here, see results/inpainting.json"

_CLOSED: dict[str, Callable[[], Predictor]] = {
    "regression": Regression,
    "least-cloudy": LeastCloudy,
    "nearest-clear": NearestClear,
    "mean-clear": MeanClear,
    "weighted-filled": WeightedFilled,
    "linear-in-time": LinearInTime,
    "harmonic": Harmonic,
}
NAMES = tuple(_CLOSED)


def get_predictor(name: str) -> Predictor:
    """A predictor by name.

    Args:
        name: one of `NAMES`; or a codec that forecasts: its id or short name, or a checkpoint as `eozip.load`
            takes it (a path, or "owner/name@lambda-5"). "tec-tt-small+regression" puts the regression's picture in
            as the last reference of the codec. Codecs import torch.

    Raises:
        InputError: unknown, or a codec that cannot forecast.
        WeightsError: a checkpoint that is not there or does not fit.
    """
    if name in _CLOSED:
        return _CLOSED[name]()
    from eozip.codecs import published, registry
    from eozip.inpaint.learned import predictor_of

    name, _, draft = name.partition("+")
    if draft and draft not in _CLOSED:
        raise InputError(f"predictor: expected one of {', '.join(NAMES)} after the +, got {draft!r}")
    try:
        codec = published.load(name) if "/" in name else registry.get(registry.resolve(name))
    except UnknownCodecError as error:
        raise InputError(
            f"predictor: expected one of {', '.join(NAMES)} or a codec that forecasts, got {name!r} ({error})"
        ) from error
    return predictor_of(codec, _CLOSED[draft]() if draft else None)
