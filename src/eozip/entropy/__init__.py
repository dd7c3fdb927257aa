"""The range coder behind three ports, its tables, fixed-point arithmetic and rate models. Nothing here is public."""

__all__: list[str] = []
