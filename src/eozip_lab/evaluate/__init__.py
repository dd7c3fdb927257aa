"""Evidence: metrics, rates, baselines and sweeps behind `benchmarks/` (docs/evaluation.md)."""
