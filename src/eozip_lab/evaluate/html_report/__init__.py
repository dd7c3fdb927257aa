"""The report of `eozip evaluate`: one self-contained page made from report.json."""
