"""The report of `eozip evaluate`: one self-contained page made from report.json."""

__all__: list[str] = []
