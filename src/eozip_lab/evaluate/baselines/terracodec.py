"""The published `terracodec` package as a baseline, where someone has installed it; eozip never depends on it.

Used through its public interface alone (0.3), in a process of its own (`terracodec_worker`): functions
`terracodec_v1_fp_s2l2a(pretrained=True, compression=10)` and the like give a model; `model.compress(x)` gives a dict of
byte strings, shapes and numbers, of which image models need `decompress(strings, shape)` and temporal ones
`decompress(that)`. Its own count of bits covers the strings of the first image alone, so bytes are counted here: strings,
lengths, shapes and the rest.

The Python of that process is the one that the environment variable EOZIP_TERRACODEC_PYTHON names, else this one.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eozip import sensors
from eozip.errors import EozipError, FormatError, InputError
from eozip_lab.evaluate.baselines.packing import checked_stack, pack, restored, unpack

_SENSOR = "s2-l2a"
_PYTHON = "EOZIP_TERRACODEC_PYTHON"
_SIDE = 256  # all but TEC-FP take no other size
_STRIDE = 16  # of TEC-FP
_UINT16_MAX = 65535
_WORKER = Path(__file__).with_name("terracodec_worker.py")


@dataclass(frozen=True)
class TerraCodec:
    """One family of published checkpoints; setting: lambda of the checkpoint, or FlexTEC's quality 1..16.

    Attributes:
        model: the package's function, such as "terracodec_v1_fp_s2l2a".
        temporal: takes [B, T, C, H, W]; else each date is an image of its own.
        flexible: one checkpoint, quality given when coding.
    """

    model: str
    temporal: bool = False
    flexible: bool = False

    @property
    def name(self) -> str:
        return self.model.replace("_v1_", "-").replace("_s2l2a", "").replace("_", "-")

    @property
    def settings(self) -> str:
        how = "all dates together" if self.temporal else "each date alone"
        return f"terracodec.{self.model}(pretrained=True), {how}; every byte that decompress needs is counted"

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        checked_stack(dn, _UINT16_MAX)
        self._check_size(dn.shape)
        mean, std = _statistics()
        x = _padded(((dn - mean) / std).astype(np.float32))
        batches = x[None, None] if self.temporal else x[:, None]
        coded = [self._ask("encode", setting, batch.shape, batch.tobytes())[1] for batch in batches]
        return pack(dn, [np.float64(setting).tobytes(), *coded])

    def decode(self, blob: bytes) -> np.ndarray:
        shape, dtype, parts = unpack(blob)
        if (
            len(parts) != 1 + (1 if self.temporal else shape[0])
            or len(parts[0]) != np.dtype(np.float64).itemsize
        ):
            raise FormatError("terracodec stream: expected a setting and the frames; the stream is damaged")
        setting = float(np.frombuffer(parts[0], np.float64)[0])
        frames = []
        for coded in parts[1:]:
            found, data = self._ask("decode", setting, (), coded)
            pixels = np.frombuffer(data, np.float32).reshape(found["shape"])
            frames.append(pixels.reshape(-1, *pixels.shape[-3:])[..., : shape[2], : shape[3]])
        mean, std = _statistics()
        pixels = np.concatenate(frames).astype(np.float64)
        if not math.isfinite(float(np.abs(pixels).max())):
            raise FormatError("terracodec: expected finite pixels back")
        return restored(pixels * std + mean, shape, dtype)

    def prepare(self, setting: float) -> None:
        """Load the checkpoint of a setting, so that no measured second is the loading's."""
        self._ask("prepare", setting)

    def _check_size(self, shape: tuple[int, ...]) -> None:
        bands = len(sensors.get(_SENSOR).bands)
        if shape[1] != bands:
            raise InputError(f"{self.name}: expected {bands} bands of {_SENSOR}, got {shape[1]}")
        if "_fp_" not in self.model and shape[2:] != (_SIDE, _SIDE):
            raise InputError(
                f"{self.name}: expected {_SIDE} x {_SIDE} pixels, got {shape[2:]}; set --size {_SIDE}"
            )

    def _ask(
        self, op: str, setting: float, shape: tuple[int, ...] = (), data: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        request = {
            "op": op,
            "model": self.model,
            "lmbda": None if self.flexible else setting,
            "quality": int(setting) if self.flexible else None,
            "fields": not self.temporal,
            "shape": list(shape),
        }
        with _named_errors(self.name):
            return _process(python()).ask(request, data)


def python() -> str:
    """The Python that has the package."""
    return os.environ.get(_PYTHON) or sys.executable


@cache
def unavailable(executable: str) -> str | None:
    """Why a Python cannot run the package; None if it can."""
    test = "import importlib.util, sys; sys.exit(importlib.util.find_spec('terracodec') is None)"
    try:
        if subprocess.run([executable, "-c", test], capture_output=True, check=False).returncode == 0:
            return None
    except OSError as error:
        return f"{executable}: cannot be run ({error}); set {_PYTHON} to a Python that has terracodec"
    return f"the package terracodec is not installed; see docs/evaluation.md, or set {_PYTHON} to a Python that has it"


@cache
def version(executable: str) -> str:
    """Of the package, which decides its bytes."""
    ask = "import importlib.metadata as m; print(m.version('terracodec'))"
    done = subprocess.run([executable, "-c", ask], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "absent"


class _Process:
    """The worker, and what passes to and from it."""

    def __init__(self, executable: str) -> None:
        self._process = subprocess.Popen(
            [executable, str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for its answer.

        Raises:
            ValueError: the package raised; the message is its own.
            ConnectionError: the process has ended.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        _write(stdin, json.dumps({**request, "bytes": len(data)}).encode() + b"\n" + data)
        head = json.loads(_line(stdout))
        body = _read(stdout, head["bytes"])
        if not head["ok"]:
            raise ValueError(head["error"])
        return head, body

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@lru_cache(maxsize=1)
def _process(executable: str) -> _Process:
    return _Process(executable)


def _write(pipe: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


def _line(pipe: Any) -> bytes:
    line = pipe.readline()
    if not line:
        raise ConnectionError("its process has ended")
    return bytes(line)


def _read(pipe: Any, count: int) -> bytes:
    parts = []
    while count:
        part = pipe.read(count)
        if not part:
            raise ConnectionError("its process has ended")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Whatever goes wrong in the package or its process names it."""
    try:
        yield
    except (ConnectionError, BrokenPipeError) as error:
        _process.cache_clear()  # the next one begins anew
        raise EozipError(f"{name}: terracodec in {python()}: {error}") from error
    except ValueError as error:
        if "damaged" in str(error):
            raise FormatError(f"{name}: {error}") from error
        raise EozipError(f"{name}: the package terracodec raised {error}; expected version 0.3") from error


def _padded(x: np.ndarray) -> np.ndarray:
    """Sides made multiples of TEC-FP's stride, by repeating the last row and column; decoding cuts them off."""
    bottom, right = -x.shape[-2] % _STRIDE, -x.shape[-1] % _STRIDE
    return np.pad(x, ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge")


@cache
def _statistics() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [C, 1, 1] in DN: those of SSL4EO-S12, which the package asks for."""
    known = sensors.get(_SENSOR)
    return tuple(np.array(values)[:, None, None] for values in (known.mean, known.std))  # type: ignore[return-value]
