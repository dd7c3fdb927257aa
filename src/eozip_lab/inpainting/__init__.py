"""Protocols that measure inpainting: hidden pixels of clear series, AllClear, pictures of what was predicted."""
