"""One chunk: numpy pixels to bytes and back, under a quality or a promise about errors."""

__all__: list[str] = []
