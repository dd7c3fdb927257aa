"""What pictures of rate-distortion curves share."""

from __future__ import annotations

from typing import Any

import numpy as np

MEANS = np.arange(30.0, 56.0, 0.5)  # dB at which the means are drawn
# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("--", ":", "-.")  # of baselines: colours repeat with another dash
_BASELINE_STYLE: dict[str, Any] = {"linestyle": "--", "linewidth": 1.2}
OWN_STYLE: dict[str, Any] = {"linestyle": "-", "linewidth": 2.2}
