"""`eozip evaluate-inpainting DATA OUT`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import eozip.inpaint as filling
from eozip.cli.common import (
    json_option,
    overwrite_option,
    print_json,
    progress_bar,
    tell,
    threads_option,
    use_threads,
)
from eozip.errors import OutputError
from eozip_lab import inpainting as protocols
from eozip_lab.evaluate.provenance import as_json as json_text
from eozip_lab.evaluate.provenance import provenance, write_text

if TYPE_CHECKING:
    from eozip.inpaint.predict import Predictor
    from eozip_lab.inpainting.run import Journal


@click.command("evaluate-inpainting")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DATA...")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--protocol",
    type=click.Choice(["masks", "allclear"]),
    default="masks",
    show_default=True,
    help="masks: clear series hidden behind made clouds. allclear: AllClear's own, DATA is its metadata JSON.",
)
@click.option("--root", type=click.Path(path_type=Path), help="allclear: the folder with the ROI folders.")
@click.option(
    "--predictors",
    help="Names separated by commas; default: all that need no codec. allclear: its own leastcloudy and mosaicing too.",
)
@click.option("--covers", help="masks: shares of hidden pixels, such as 0.1,0.3; default 0.05 to 1.")
@click.option(
    "--repeats",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="masks: per cover and shape.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="allclear: means over batches of N samples, as the published code has them, instead of over samples.",
)
@click.option("--limit", type=click.IntRange(min=1), help="allclear: only the first so many samples.")
@click.option(
    "--pictures", type=click.Path(path_type=Path), help="masks: folder for one picture per place and cover."
)
@overwrite_option
@json_option
@threads_option
def evaluate_inpainting(
    data: tuple[Path, ...], out: Path, protocol: str, predictors: str | None, as_json: bool, **options: Any
) -> None:
    """Compare predictors of hidden pixels; writes OUT, a JSON file.

    DATA is a folder of <place>_<number>.tif, an .npz (reflectance, dates, bands), or AllClear's metadata. An interrupted
    run goes on where it stopped: finished rows lie in OUT.rows.jsonl until the end.
    """

    if out.exists() and not options["overwrite"]:
        raise OutputError(f"{out} exists already; choose another name or pass --overwrite")
    use_threads(options["threads"])
    chosen = _chosen(predictors, protocol)
    lines = out.with_name(out.name + ".rows.jsonl")
    journal = protocols.Journal(lines)
    run = _allclear if protocol == "allclear" else _masks
    found = run(data, chosen, journal, as_json, options)
    document = {
        "provenance": provenance(),
        "protocol": protocol,
        **found,
        "rows": journal.rows,
    }
    write_text(out, json_text(document), overwrite=options["overwrite"])
    lines.unlink(missing_ok=True)
    if as_json:
        print_json({"output": str(out), **found})
    else:
        tell("\n".join([f"{out}: {len(journal.rows)} rows", *_lines(found)]))


def _masks(
    data: tuple[Path, ...], chosen: list[Predictor], journal: Journal, quiet: bool, options: dict[str, Any]
) -> dict[str, Any]:

    covers = _covers(options["covers"]) if options["covers"] else protocols.COVERS
    truths = [truth for path in data for truth in protocols.load_truths(path)]
    found = (case for truth in truths for case in protocols.cases(truth, covers, options["repeats"]))
    total = len(truths) * len(covers) * 3 * options["repeats"]
    gallery = (
        protocols.Gallery(options["pictures"], next(truth.bands for truth in truths))
        if options["pictures"]
        else None
    )
    with progress_bar("Comparing", "cases", quiet=quiet) as progress:
        done = iter(range(1, total + 1))
        extra = {} if gallery is None else {"seen": gallery.take}
        protocols.run_cases(found, chosen, journal, lambda key: progress(next(done), total), **extra)
    if gallery is not None:
        gallery.finish()
    return {"default": filling.DEFAULT, "summary": protocols.summary(journal.rows)}


def _covers(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--covers: expected shares such as 0.1,0.3, got {text!r}") from error
    if not all(0 < cover <= 1 for cover in found):
        raise click.UsageError(f"--covers: expected shares above 0 and up to 1, got {text!r}")
    return found


def _chosen(predictors: str | None, protocol: str) -> list[Any]:
    """The predictors of a protocol; AllClear's own baselines by the names that its command has."""

    theirs = protocols.PUBLISHED if protocol == "allclear" else {}
    extra = [protocols.LEAST_CLOUDY.name, protocols.MOSAICING.name] if theirs else []
    names = predictors.split(",") if predictors else [*filling.NAMES, *extra]
    return [theirs.get(name) or filling.get_predictor(name) for name in names]


def _allclear(
    data: tuple[Path, ...], chosen: list[Any], journal: Journal, quiet: bool, options: dict[str, Any]
) -> dict[str, Any]:

    samples = [sample for path in data for sample in protocols.read_samples(path, options["root"])][
        : options["limit"]
    ]
    with progress_bar("Comparing", "samples", quiet=quiet) as progress:
        done = iter(range(1, len(samples) + 1))
        protocols.run_allclear(samples, chosen, journal, lambda key: progress(next(done), len(samples)))
    names = [predictor.name for predictor in chosen]
    means = protocols.allclear_means(samples, names, journal, options["batch"])
    finite = {
        name: {k: v if math.isfinite(v) else None for k, v in found.items()} for name, found in means.items()
    }
    found = {
        "default": filling.DEFAULT,
        "samples": len(samples),
        "batch": options["batch"],
        "means": finite,
    }
    return {**found, "land_cover": protocols.land_cover_means(samples, names, journal)}


def _number(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.4g}"


def _lines(found: dict[str, Any]) -> list[str]:
    if "means" in found:
        return [
            f"  {name:16} " + ", ".join(f"{metric} {_number(value)}" for metric, value in means.items())
            for name, means in found["means"].items()
        ]
    lines = []
    for group in found["summary"]:
        low, high = (100 * share for share in group["cover"])
        lines.append(f"{group['dates']} dates, {low:.0f} to {high:.0f} % hidden, {group['cases']} cases:")
        for name, means in sorted(group["predictors"].items(), key=lambda item: item[1]["mae"]):
            lines.append(
                f"  {name:16} MAE {means['mae']:6.1f} DN, SAM {means['sam']:5.2f} deg, PSNR {means['psnr']:5.2f} dB, "
                f"SSIM {means['ssim']:.3f}, {100 * means['inside']:.1f} % inside, {means['seconds']:.2f} s"
            )
    return lines
