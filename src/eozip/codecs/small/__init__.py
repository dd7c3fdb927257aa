"""The tec-*-small codecs: networks, entropy models, coding and files."""

__all__: list[str] = []
