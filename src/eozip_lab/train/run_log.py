"""What a run says about itself: log.jsonl, a progress bar on stderr, and the training curve."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from eozip.lazy import optional
from eozip.outputs import publish
from eozip.picture import new_figure

LOG, CURVE = "log.jsonl", "curve.png"
_PLAIN_SECONDS = 30.0  # between two lines where stderr is no terminal


@dataclass(frozen=True)
class Tick:
    """Where a run stands after a step.

    Attributes:
        step: steps done.
        done: part of the budget used, 0 .. 1.
        left: seconds left, or None while unknown.
        loss, bpppb, psnr: means over the steps since the last line of the log.
    """

    step: int
    done: float
    left: float | None
    loss: float
    bpppb: float
    psnr: float

    def text(self) -> str:
        """One line."""
        rest = "" if self.left is None else f", {_clock(self.left)} left"
        numbers = f"loss {self.loss:.4f}, {self.bpppb:.3f} bpppb, {self.psnr:.1f} dB"
        return f"step {self.step}: {numbers}{rest}"


def _clock(seconds: float) -> str:
    """Such as 1:02:03."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


@dataclass
class Journal:
    """log.jsonl of a run: one JSON object a line, appended and flushed at once."""

    path: Path

    def write(self, event: str, **facts: Any) -> None:
        """Add one line."""
        line = json.dumps(
            {"event": event, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **facts}
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def drop_after(self, step: int) -> None:
        """Take out what was logged after the checkpoint that a run goes on from."""
        kept = [line for line in self.lines() if line.get("step", 0) <= step]
        part = self.path.with_name(self.path.name + ".part")
        part.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        publish(part, self.path, overwrite=True)

    def lines(self) -> list[dict[str, Any]]:
        """Every line so far; one that was cut off by a crash is left out."""
        if not self.path.is_file():
            return []
        return [line for text in self.path.read_text("utf-8").splitlines() if (line := _parsed(text))]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return json.loads(text)
    except ValueError:
        return None


@dataclass
class Display:
    """Progress on stderr: a bar on terminals, a line every half minute elsewhere, nothing if not wanted."""

    wanted: bool
    _bar: Any = None
    _task: Any = None
    _last: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        console = Console(stderr=True)
        if not self.wanted or not console.is_terminal:
            return
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("starting", total=1.0)
        self._bar.start()

    def tick(self, tick: Tick) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=tick.done, description=tick.text())
        elif self.wanted and time.monotonic() - self._last > _PLAIN_SECONDS:
            self.say(tick.text())

    def say(self, text: str) -> None:
        """A line that stays."""
        self._last = time.monotonic()
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        elif self.wanted:
            Console(stderr=True).print(text, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def displayed(wanted: bool) -> Iterator[Display]:
    """A `Display` that is taken down at the end."""
    display = Display(wanted)
    display.start()
    try:
        yield display
    finally:
        display.stop()


def need_matplotlib() -> None:
    """Fail now and not after hours, if the curve could not be drawn.

    Raises:
        InputError: matplotlib is not installed.
    """
    optional("matplotlib", "the training curve needs matplotlib: pip install 'eozip[train]'")


def draw_curve(lines: list[dict[str, Any]], path: Path) -> None:
    """Loss over steps, and the rate-distortion curves of the validations: PNG."""
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    _draw_loss(left, [line for line in lines if line["event"] == "train"])
    _draw_points(right, [line for line in lines if line["event"] in ("validation", "bytes")])
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png", dpi=110)
    publish(part, path, overwrite=True)


def _draw_loss(axes: Any, lines: list[dict[str, Any]]) -> None:
    axes.plot([line["step"] for line in lines], [line["loss"] for line in lines], lw=1)
    axes.set(xlabel="step", ylabel="loss (R + λD) λ^-0.45", title="training loss")
    axes.grid(alpha=0.3)


def _draw_points(axes: Any, lines: list[dict[str, Any]]) -> None:
    for i, line in enumerate(lines):
        is_bytes = line["event"] == "bytes"
        rates, psnrs = ([p[key] for p in line["mean"]] for key in ("bpppb", "psnr"))
        label = "bytes at the end" if is_bytes else f"step {line['step']}"
        is_named = is_bytes or i in (0, len(lines) - 1) or lines[i + 1]["event"] == "bytes"
        style = {"color": "k", "marker": "o"} if is_bytes else {"alpha": (i + 1) / len(lines), "color": "C0"}
        axes.plot(rates, psnrs, lw=1, ms=4, label=label if is_named else None, **style)
    axes.set(xscale="log", xlabel="bpppb", ylabel="PSNR, dB (peak 10,000 DN)", title="validation")
    axes.grid(alpha=0.3, which="both")
    if lines:
        axes.legend()
