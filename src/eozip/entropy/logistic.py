"""Logistic likelihood of integer bins: the prior of the `small` codecs, in floats for training and for table building.

A symbol s has P(s) = S((s + 1/2 - m) / b) - S((s - 1/2 - m) / b) with the logistic function S. Its tails are heavier than
a Gaussian's, which suits transform coefficients, and its logarithm has a closed form that never underflows:
S(u) - S(l) = S(u) S(-l) (1 - exp(l - u)).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from eozip.entropy.logistic_tables import LOG_SCALE_MAX, LOG_SCALE_MIN


def bounded(log_scale: Tensor) -> Tensor:
    """Keep a log scale above the minimum softly (a hard clamp would leave a channel stuck there) and below the maximum."""
    return (LOG_SCALE_MIN + F.softplus((log_scale - LOG_SCALE_MIN) * 4) / 4).clamp_max(LOG_SCALE_MAX)


def bits(residual: Tensor, log_scale: Tensor) -> Tensor:
    """-log2 P of bins one step wide. residual: value minus mean, in steps; same shape out, bits."""
    inverse = torch.exp(-bounded(log_scale))
    upper, lower = (residual + 0.5) * inverse, (residual - 0.5) * inverse
    nats = F.softplus(-upper) + F.softplus(lower) - torch.log(-torch.expm1(-inverse))
    return nats / math.log(2)
