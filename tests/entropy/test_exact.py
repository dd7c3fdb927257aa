"""Grids and sums that every machine computes alike."""

from __future__ import annotations

import torch

from eozip.entropy import fixed_point


def test_carrier_is_wide_where_float32_products_may_not_be_ieee():
    assert fixed_point.carrier_for(torch.device("cpu")) == torch.float32
    assert fixed_point.carrier_for(torch.device("cuda")) == torch.float64
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert fixed_point.carrier_for(torch.device("cpu")) == torch.float64
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.backends.mkldnn.flags(enabled=False):
        assert fixed_point.carrier_for(torch.device("cpu")) == torch.float64


def test_values_go_to_the_nearest_multiple_ties_to_even_within_the_range():
    v = torch.tensor([0.125, 0.375, 0.6, -0.125, -0.3, 9.0, -9.0], dtype=torch.float64)
    expected = [0.0, 0.5, 0.5, 0.0, -0.25, 2.0, -2.0]
    assert fixed_point.on_grid(v, 4.0, 2.0).tolist() == expected
    assert fixed_point.on_grid(v.float(), 4.0, 2.0).tolist() == expected


def test_look_up_keeps_the_shape_of_the_index():
    table, index = torch.arange(10.0), torch.tensor([[3, 0], [9, 3]])
    assert torch.equal(fixed_point.looked_up(table, index), table[index])
