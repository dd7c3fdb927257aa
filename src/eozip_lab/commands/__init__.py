"""Commands of `eozip` that belong to the workbench; `eozip.cli` finds them by their entry points."""

__all__: list[str] = []
