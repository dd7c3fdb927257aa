"""The published package in a process of its own: run by path with a Python that has it, which need not have eozip.

Its pins of numpy cannot be met beside eozip, so nothing of eozip is imported here: Python's own library, numpy, torch and
terracodec alone. Requests come on stdin and answers go to stdout, each a line of JSON that says how many bytes follow:

    {"op": "prepare" | "encode" | "decode", "model": ..., "lmbda": ..., "quality": ..., "shape": [...], "bytes": n}
    {"ok": true, "shape": [...], "bytes": n}   or   {"ok": false, "error": ...}

What `encode` answers is all that decompress needs, as a skeleton (JSON, deflated) and byte strings: every byte counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import struct
import sys
import zlib
from typing import Any

import numpy as np

_LIMIT = 1 << 26  # bytes of a skeleton, inflated
_NEEDED = ("strings", "shape")  # of what image models return; ELIC's y_hat is not read
_HEAD = struct.Struct("<I")
# what a package may raise
_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, NameError, OSError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


def _flattened(tree: Any) -> bytes:
    """Nested dicts, lists, tuples, numbers, text, None, bytes and arrays as bytes."""
    data: list[bytes] = []
    skeleton = zlib.compress(json.dumps(_plain(tree, data), separators=(",", ":")).encode(), 9)
    return b"".join([_HEAD.pack(len(skeleton)), skeleton, *data])


def _restored_tree(data: bytes) -> Any:
    """What `_flattened` was given; tuples as lists, arrays as tensors.

    Raises:
        ValueError: damaged.
    """
    try:
        (size,) = _HEAD.unpack_from(data)
        skeleton = json.loads(zlib.decompressobj().decompress(data[_HEAD.size : _HEAD.size + size], _LIMIT))
        reader = _Reader(data[_HEAD.size + size :])
        tree = _rebuilt(skeleton, reader)
    except (struct.error, zlib.error, KeyError, TypeError) as error:
        raise ValueError(f"damaged: {error!r}") from error
    reader.finish()
    return tree


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self._at:
            raise ValueError(f"damaged: expected {count} bytes, got {len(self._data) - self._at}")
        self._at += count
        return self._data[self._at - count : self._at]

    def finish(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"damaged: {len(self._data) - self._at} bytes too many")


def _plain(node: Any, data: list[bytes]) -> Any:
    if isinstance(node, str) and (raw := _from_base64(node)) is not None:
        data.append(raw)
        return {"t": len(raw)}
    if isinstance(node, (bytes, bytearray)):
        data.append(bytes(node))
        return {"b": len(node)}
    if isinstance(node, dict):
        return {"d": [[key, _plain(value, data)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return [_plain(item, data) for item in node]
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    return _plain_array(node, data)


def _from_base64(text: str) -> bytes | None:
    """The bytes that text stands for, if it is base64 of the usual form: they are what is coded, a quarter fewer."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(text) >= 8 and base64.b64encode(raw).decode() == text else None


def _plain_array(node: Any, data: list[bytes]) -> Any:
    array = np.asarray(node.detach().cpu().numpy() if hasattr(node, "detach") else node)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected numbers, text, bytes or arrays of them, got {type(node).__name__}")
    data.append(np.ascontiguousarray(array).tobytes())
    return {"a": [array.dtype.str, list(array.shape)]}


def _rebuilt(node: Any, reader: _Reader) -> Any:
    if isinstance(node, list):
        return [_rebuilt(item, reader) for item in node]
    if not isinstance(node, dict):
        return node
    if "b" in node:
        return reader.take(node["b"])
    if "t" in node:
        return base64.b64encode(reader.take(node["t"])).decode()
    if "d" in node:
        return {key: _rebuilt(value, reader) for key, value in node["d"]}
    return _array(*node["a"], reader)


def _array(name: str, shape: list[int], reader: _Reader) -> Any:
    import torch  # the parent's process may have none

    dtype = np.dtype(name)
    count = int(np.prod(shape, dtype=np.int64))
    return torch.from_numpy(np.frombuffer(reader.take(count * dtype.itemsize), dtype).reshape(shape).copy())


class _Worker:
    """One model at a time: the temporal ones hold 225 million parameters each."""

    def __init__(self) -> None:
        self._asked: tuple[str, float | None] | None = None
        self._model: Any = None

    def answer(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Do what a request asks for."""
        model = self._loaded(request["model"], request["lmbda"])
        if request["op"] == "encode":
            return {}, self._encode(model, request, data)
        if request["op"] == "decode":
            return self._decode(model, request, data)
        return {}, b""

    def _loaded(self, name: str, lmbda: float | None) -> Any:
        if self._asked != (name, lmbda):
            import terracodec  # likewise, and heavy

            build = getattr(terracodec, name, None)
            if build is None:
                raise ValueError(
                    f"expected a function {name} in terracodec, got none; version 0.3 or newer has it"
                )
            options = {} if lmbda is None else {"compression": int(lmbda) if lmbda == int(lmbda) else lmbda}
            self._model = None  # two do not fit
            self._model, self._asked = build(pretrained=True, **options).eval(), (name, lmbda)
        return self._model

    def _encode(self, model: Any, request: dict[str, Any], data: bytes) -> bytes:
        import torch  # the parent's process may have none

        x = torch.from_numpy(np.frombuffer(data, np.float32).reshape(request["shape"]).copy())
        options = {} if request["quality"] is None else {"quality": request["quality"]}
        with torch.no_grad():
            found = model.compress(x, **options)
        if request["fields"]:
            return _flattened({name: found[name] for name in _NEEDED})
        # decompress takes the whole, but its own count of bits tells it nothing: 0 stands for it
        return _flattened({**found, "bits": 0})

    def _decode(self, model: Any, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        import torch  # the parent's process may have none

        coded = _restored_tree(data)
        with torch.no_grad():
            out = model.decompress(**coded) if request["fields"] else model.decompress(coded)
        if isinstance(out, dict):
            out = out.get("x_hat", next(iter(out.values())))
        if isinstance(out, (tuple, list)):
            out = out[0]
        pixels = np.ascontiguousarray(out.detach().cpu().numpy(), np.float32)
        return {"shape": list(pixels.shape)}, pixels.tobytes()


def main() -> None:
    """Answer until stdin ends; whatever the package prints goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    worker = _Worker()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        data = sys.stdin.buffer.read(request["bytes"])
        try:
            head, body = worker.answer(request, data)
            head = {"ok": True, **head}
        except _FAULTS as error:  # the parent names it
            head, body = {"ok": False, "error": f"{type(error).__name__}: {error}"}, b""
        answers.write(json.dumps({**head, "bytes": len(body)}).encode() + b"\n" + body)
        answers.flush()


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file: its neighbours' names are not for the package's imports
    main()
