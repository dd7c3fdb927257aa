"""Nested dicts, lists, numbers, tensors and byte strings as parts of bytes: what other packages' encoders return.

Two parts: a skeleton, JSON with bytes replaced by their lengths, deflated; and all bytes, one behind the other.
Both are charged to whoever needs them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from eozip.errors import FormatError, InputError

_LIMIT = 1 << 24  # bytes of a skeleton, inflated


def flattened(tree: Any) -> list[bytes]:
    """Skeleton and bytes.

    Raises:
        InputError: something else than dicts (keys text or whole numbers), lists, tuples, numbers, text, None,
            arrays and bytes.
    """
    data: list[bytes] = []
    skeleton = json.dumps(_plain(tree, data), separators=(",", ":"))
    return [zlib.compress(skeleton.encode(), 9), b"".join(data)]


def restored_tree(parts: list[bytes]) -> tuple[Any, list[bytes]]:
    """What `flattened` was given (tuples as lists, arrays as torch tensors), and the parts that follow.

    Raises:
        FormatError: damaged.
    """
    if len(parts) < 2:
        raise FormatError(f"tree: expected a skeleton and bytes, got {len(parts)} parts")
    inflate = zlib.decompressobj()
    try:
        skeleton = json.loads(inflate.decompress(parts[0], _LIMIT))
        reader = _Reader(parts[1])
        tree = _rebuilt(skeleton, reader)
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"tree: damaged skeleton: {error!r}") from error
    reader.finish()
    return tree, parts[2:]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self._at:
            raise FormatError(f"tree: expected {count} bytes, got {len(self._data) - self._at}")
        self._at += count
        return self._data[self._at - count : self._at]

    def finish(self) -> None:
        if self._at != len(self._data):
            raise FormatError(f"tree: {len(self._data) - self._at} bytes too many")


def _plain(node: Any, data: list[bytes]) -> Any:
    if isinstance(node, bytes | bytearray):
        data.append(bytes(node))
        return {"b": len(node)}
    if isinstance(node, Mapping):
        return {"d": [[_key(key), _plain(value, data)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [_plain(item, data) for item in node]
    if node is None or isinstance(node, bool | int | float | str):
        return node
    return _plain_array(node, data)


def _plain_array(node: Any, data: list[bytes]) -> Any:
    array = np.asarray(node.detach().cpu().numpy() if hasattr(node, "detach") else node)
    if array.dtype.kind not in "biuf":
        raise InputError(f"tree: expected numbers, text, bytes or arrays of them, got {type(node).__name__}")
    data.append(np.ascontiguousarray(array).tobytes())
    return {"a": [array.dtype.str, list(array.shape)]}


def _key(key: Any) -> str | int:
    if not isinstance(key, str | int) or isinstance(key, bool):
        raise InputError(f"tree: expected text or whole numbers as keys, got {key!r}")
    return key


def _rebuilt(node: Any, reader: _Reader) -> Any:
    if isinstance(node, list):
        return [_rebuilt(item, reader) for item in node]
    if not isinstance(node, dict):
        return node
    if "b" in node:
        return reader.take(node["b"])
    if "d" in node:
        return {key: _rebuilt(value, reader) for key, value in node["d"]}
    return _array(*node["a"], reader)


def _array(name: str, shape: list[int], reader: _Reader) -> Any:
    import torch

    dtype = np.dtype(name)
    if dtype.kind not in "biuf":
        raise FormatError(f"tree: expected an array of numbers, got {name}")
    count = int(np.prod(shape, dtype=np.int64))
    return torch.from_numpy(np.frombuffer(reader.take(count * dtype.itemsize), dtype).reshape(shape).copy())
