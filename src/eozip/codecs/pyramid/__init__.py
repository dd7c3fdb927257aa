"""The pyramid codecs: bands on their own grids, a transform of integers, and a learned context model.

    bands of one scene -> spectral basis of its own (spectral.py) -> Haar pyramid (haar.py) -> symbols, level by level, each
    under a table that a small network chooses from everything decoded so far (context.py, traverse.py) -> bytes

Every number that a decoder computes is an integer or a dyadic fraction that float32 holds exactly, so symbols and pixels are
functions of the bytes alone. docs/pyramid.md defines each step.
"""

__all__: list[str] = []
