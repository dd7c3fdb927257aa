"""Integer tables: exact sums, nothing impossible, nearly the probabilities they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eozip.entropy import gaussian
from eozip.entropy.factorized import FactorizedPrior
from eozip.entropy.factorized_tables import factorized_tables
from eozip.entropy.range_coder import PRECISION
from eozip.entropy.tables import _integer_frequencies, gaussian_tables

TOTAL = 1 << PRECISION


@given(st.lists(st.floats(1e-12, 1), min_size=2, max_size=3000))
@settings(max_examples=60, deadline=None)
def test_frequencies_sum_exactly_and_leave_nothing_impossible(masses):
    freqs = _integer_frequencies(np.array(masses))
    assert int(freqs.sum()) == TOTAL
    assert freqs.min() >= 1


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=200))
@settings(max_examples=60, deadline=None)
def test_frequencies_are_proportional_where_nothing_is_tiny(masses):
    masses = np.array(masses) / sum(masses)
    shares = masses * TOTAL
    if shares.min() > 1:
        assert np.abs(_integer_frequencies(masses) - shares).max() < 1


def test_zero_mass_still_gets_an_entry():
    assert _integer_frequencies(np.array([1.0, 0.0, 0.0])).tolist() == [TOTAL - 2, 1, 1]


def test_gaussian_rows_are_symmetric_and_cost_what_the_gaussian_does():
    tables = gaussian_tables(gaussian.scale_levels())
    assert len(tables.size) == 64
    for row, scale in enumerate(gaussian.scale_levels()):
        n = tables.size[row] - 1
        symbols = np.arange(n) + tables.first[row]
        assert symbols[0] == -symbols[-1]
        freqs = tables.freqs[row, :n].astype(np.float64)
        assert np.abs(freqs - freqs[::-1]).max() <= 1  # the remainder goes to one side
        p = gaussian.gaussian_likelihood(torch.arange(n) + float(symbols[0]), torch.tensor(scale)).numpy()
        extra = float((p * np.log2(p * TOTAL / freqs)).sum())
        assert extra < 0.005 + 0.002 * math.log2(1 + scale)  # bits per symbol


def test_factorised_rows_cost_what_the_prior_says():
    torch.manual_seed(0)
    prior = FactorizedPrior(6)
    with torch.no_grad():
        prior.quantiles[:, 0, 1] = torch.linspace(-0.5, 0.5, 6)
    tables = factorized_tables(prior)
    for channel in range(6):
        n = int(tables.size[channel]) - 1
        values = torch.arange(n) + float(tables.first[channel]) + prior.medians[channel]
        with torch.no_grad():
            p = prior.likelihood(values.expand(6, n)[None, :, None])[0, channel, 0].numpy()
        freqs = tables.freqs[channel, :n]
        assert p.sum() == pytest.approx(1, abs=1e-3)
        assert float((p * np.log2(p * TOTAL / freqs)).sum()) < 0.01


def test_a_very_wide_prior_stays_within_bounds():
    prior = FactorizedPrior(1)
    with torch.no_grad():
        prior.matrices[0] -= 20
    tables = factorized_tables(prior)
    assert tables.size[0] <= 2 * 2048 + 1
    assert int(tables.freqs.sum()) == TOTAL
