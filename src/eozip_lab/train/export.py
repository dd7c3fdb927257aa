"""From a checkpoint to a weights folder: model.safetensors, config.json with its hash, card.md, worst.png."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import eozip
from eozip.errors import InputError
from eozip.outputs import publish
from eozip.own import SENSOR_FILE
from eozip_lab.train import model_card, validate
from eozip_lab.train import state as states
from eozip_lab.train.kinds import kind_for
from eozip_lab.train.packing import with_pack
from eozip_lab.train.recipe import Recipe, load
from eozip_lab.train.validate import PSNRS, Point, mean_at_psnr, means

_CARD = "card.md"
_HASHES, _POINTS, _WORST, RECIPE = "Data hashes", "Rate and distortion", "Worst chunk", "Recipe"


@dataclass(frozen=True)
class Facts:
    """What a model card says about a run, next to its recipe.

    Attributes:
        steps, seconds: spent.
        data: `Source.facts` of every source.
        command, commit, hardware: how, from what, on what.
        points: real bytes per place and quality; empty if not measured.
        hashes: of the data, a line each.
        worst: about the chunk in worst.png; empty if there is none.
    """

    steps: int
    seconds: float
    data: Sequence[Mapping[str, Any]] = ()
    command: str = ""
    commit: str = ""
    hardware: str = ""
    points: Sequence[Point] = ()
    hashes: Sequence[str] = ()
    worst: str = ""


def export(parent: Path, recipe: Recipe, model: nn.Module, facts: Facts, name: str = "") -> Path:
    """Write weights as their kind does, with a model card.

    Args:
        parent: the weights go into a folder in it that is called like their id.
        recipe: what they were trained by.
        model: the averaged network, on the CPU, in eval mode.
        facts: for the card.
        name: full id; default: the recipe's.

    Returns:
        The folder written.
    """
    full_id, kind = name or full_name(recipe), kind_for(recipe)
    folder = parent / checked_name(full_id)
    kind.save(folder, model, full_id, kind.sensor, card(full_id, recipe, facts))
    if recipe.sensor.endswith(".toml"):
        shutil.copyfile(recipe.sensor, folder / SENSOR_FILE)  # the weights mean nothing without it
    return folder


def describe(folder: Path, recipe: Recipe, facts: Facts) -> None:
    """Write the card of exported weights anew, now that more is known; with points, worst.png too."""
    worst = _worst(folder, recipe) if facts.points else ""
    facts = replace(facts, hashes=model_card.hash_lines(recipe), worst=worst)
    _write_card(folder, card(folder.name, recipe, facts))


def renew(folder: Path, recipe: Path | str, data: Path | None = None) -> Path:
    """Measure exported weights, and write what was found into their card; what it says of the run stays.

    Args:
        folder: exported weights with a card.
        recipe: a TOML file, or the name of a shipped recipe: its places, qualities and data.
        data: a pack to use instead of the recipe's data and places.

    Returns:
        The card.

    Raises:
        InputError: no card there, or a recipe that cannot be used.
        WeightsError: the weights cannot be loaded.
    """
    if not (folder / _CARD).is_file():
        raise InputError(f"{folder}: expected a folder of exported weights with {_CARD}, got none")
    chosen = load(recipe) if data is None else with_pack(load(recipe), data)
    kind = kind_for(chosen)
    stacks = validate.load_places(chosen, kind.band_names)
    points = validate.real_bytes(kind.load(folder), stacks, chosen.validation.qualities)
    text = (folder / _CARD).read_text(encoding="utf-8")
    text = _with_section(text, _HASHES, _hash_lines(model_card.hash_lines(chosen)))
    text = _with_section(text, _POINTS, _points_lines(points))
    text = _with_section(text, _WORST, _worst_lines(_worst(folder, chosen)))
    _write_card(folder, text)
    return folder / _CARD


def _worst(folder: Path, recipe: Recipe) -> str:
    """Draws the worst chunk of the weights in a folder; says which it is."""
    kind = kind_for(recipe)
    chunk = model_card.worst_chunk(kind.load(folder), validate.load_places(recipe, kind.band_names))
    model_card.draw_worst(chunk, kind.band_names, folder / model_card.WORST)
    return chunk.text()


def _write_card(folder: Path, text: str) -> None:
    part = folder / f"{_CARD}.part"
    part.write_text(text, encoding="utf-8")
    publish(part, folder / _CARD, overwrite=True)


def export_checkpoint(checkpoint: Path, parent: Path, facts: Facts, name: str = "") -> Path:
    """`export` of the averaged weights in a checkpoint file.

    Raises:
        WeightsError: not a checkpoint of `eozip train`.
    """
    content = states.read(checkpoint)
    recipe = states.recipe_of(content)
    kind = kind_for(recipe)
    model = kind.build(kind.configured(recipe.network))
    model.load_state_dict(content["average"])
    return export(parent, recipe, model.eval(), facts, name)


def full_name(recipe: Recipe) -> str:
    """Full id of a recipe's weights."""
    return recipe.name or f"{recipe.kind}-{kind_for(recipe).sensor.replace('-', '')}-v0"


def card(full_id: str, recipe: Recipe, facts: Facts) -> str:
    """The model card, Markdown."""
    return "\n".join(
        [
            f"# {full_id}",
            "",
            f"Network `{recipe.kind}` of eozip {eozip.__version__}, trained by `eozip train`. One network",
            f"serves every quality. {_credit(recipe)}",
            "",
            *_run_lines(facts),
            "",
            "## Data",
            "",
            *[f"- {_data_line(entry)}" for entry in facts.data],
            f"- validation, never trained on: {', '.join(p.name for p in recipe.validation.places)}",
            "",
            f"## {_HASHES}",
            "",
            *_hash_lines(facts.hashes),
            "",
            f"## {_POINTS}",
            "",
            *_points_lines(facts.points),
            "",
            f"## {_WORST}",
            "",
            *_worst_lines(facts.worst),
            "",
            f"## {RECIPE}",
            "",
            "```json",
            recipe.to_json(),
            "```",
            "",
        ]
    )


def _credit(recipe: Recipe) -> str:
    sensor = kind_for(recipe).sensor
    return "Contains modified Copernicus Sentinel data." if sensor.startswith("s2-") else f"Sensor: {sensor}."


def _run_lines(facts: Facts) -> list[str]:
    return [
        f"- steps: {facts.steps}, minutes: {facts.seconds / 60:.1f}",
        f"- command: `{facts.command}`",
        f"- commit: {facts.commit}",
        f"- hardware: {facts.hardware}",
    ]


def _data_line(entry: Mapping[str, Any]) -> str:
    files = list(entry.get("files", ()))
    shown = ", ".join(files[:20]) + (f" and {len(files) - 20} more" if len(files) > 20 else "")
    numbers = ", ".join(f"{key} {entry[key]:,}" for key in ("arrays", "pixels") if key in entry)
    left = entry.get("left_out", ())
    return (
        f"{entry['kind']}: {shown}"
        + (f" ({numbers})" if numbers else "")
        + (f"; left out: {len(left)}" if left else "")
    )


def _hash_lines(hashes: Sequence[str]) -> list[str]:
    return [
        "SHA-256 of a file, or of the output of `sha256sum FILE ...` for several, by name:",
        "",
        *[f"- {line}" for line in hashes],
    ]


def _worst_lines(worst: str) -> list[str]:
    if not worst:
        return ["Not measured."]
    return [
        f"{worst}. Of all dates of all places, each coded alone, the one with the lowest PSNR.",
        "",
        f"![worst]({model_card.WORST})",
    ]


def _with_section(text: str, title: str, lines: Sequence[str]) -> str:
    """A card with one section replaced, or put before the recipe if it had none."""
    blocks = re.split(r"(?m)^(?=## )", text)
    block = "\n".join([f"## {title}", "", *lines, "", ""])
    names = [each.partition("\n")[0] for each in blocks]
    if f"## {title}" in names:
        blocks[names.index(f"## {title}")] = block
    else:
        blocks.insert(names.index(f"## {RECIPE}") if f"## {RECIPE}" in names else len(blocks), block)
    return "".join(blocks)


def _points_lines(points: Sequence[Point]) -> list[str]:
    if not points:
        return ["Not measured with real bytes."]
    rows = [
        f"| {p.place} | {p.quality:g} | {p.bpppb:.4f} | {p.psnr:.2f} |" for p in [*points, *means(points)]
    ]
    at = [f"{db:g} dB: {'-' if (r := mean_at_psnr(points, db)) is None else f'{r:.4f}'}" for db in PSNRS]
    return [
        "Bytes of everything over T C H W of the input; PSNR of decoded pixels, peak 10,000 DN, all bands",
        "and dates.",
        "",
        "| place | quality | bpppb | PSNR, dB |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Mean over places of bpppb at {'; '.join(at)}.",
    ]


def command_line() -> str:
    """The command of this process."""
    name = Path(sys.argv[0]).name
    return shlex.join(["eozip" if name == "__main__.py" else name, *sys.argv[1:]])


def commit() -> str:
    """Git commit of the checkout that eozip runs from, with "+changes" if it differs; else the version."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"eozip {eozip.__version__}, not a git checkout"


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def hardware(device: torch.device) -> str:
    """Processor or accelerator, threads, versions."""
    if device.type == "cuda":
        what = torch.cuda.get_device_name(device)
    else:
        what = f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{what}; Python {platform.python_version()}, torch {torch.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.is_file()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def checked_name(name: str) -> str:
    """A full id as folder name.

    Raises:
        InputError: it could leave the folder.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"name: expected an id such as tec-elic-s2l2a-v1, got {name!r}")
    return name


def points_table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Points ready for JSON."""
    return [asdict(p) for p in points]
