"""The workbench beside eozip: evaluation, training, simulation. eozip never imports it."""

__all__: list[str] = []
