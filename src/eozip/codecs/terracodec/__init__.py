"""Codecs in the layout of the published TerraCodec checkpoints: networks, entropy models, coding and files."""

__all__: list[str] = []
