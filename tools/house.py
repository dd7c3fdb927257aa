"""Measure how much of the house a newcomer must open: `python tools/house.py` prints a table, `--json` the same as JSON.

What ran is counted by `sys.setprofile` on one made-up GeoTIFF of 12 bands and 64 x 64 pixels; what is written, by `ast`.
Definitions:

    files, functions    of this project that run in `eozip encode` (in a fresh process), in `eozip decode` and in
                        `eozip.encode(dn)` (codec loaded); what an import runs, bodies of modules and of classes, is not
                        counted: nobody follows it
    names of dn         names of arguments and local variables that hold an array of pixels of dn's shape while it is encoded
    climbs              pairs of functions: the called one lies in a file that is further up the stack, another file between
    public names        what packages and modules list in `__all__`; of a module without one in a package without one, all
                        shared names
    shared names        functions, classes and constants at module level without underscore, public or not
    circles             groups of modules that import each other, inside functions too, but not under TYPE_CHECKING
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PRODUCT = "eozip"


# --- what is written ---


def modules() -> dict[str, ast.Module]:
    """Every module of the project by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def shared_names(tree: ast.Module) -> set[str]:
    """Functions, classes and constants at module level that do not start with an underscore."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def listed_names(tree: ast.Module) -> set[str] | None:
    """What a module lists in `__all__`, or the keys of the table that it is made of; None where it has none."""
    tables = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and isinstance(getattr(node, "value", None), ast.expr):
            tables[target.id] = node.value
    found = tables.get("__all__")
    if isinstance(found, ast.Call) and isinstance(found.args[0], ast.Name):  # list(_HOMES)
        found = tables[found.args[0].id]
    if found is None:
        return None
    items = found.keys if isinstance(found, ast.Dict) else getattr(found, "elts", [])
    return {item.value for item in items if isinstance(item, ast.Constant)}


def public_names(known: dict[str, ast.Module]) -> int:
    """Names that a package or a module lists, and all shared ones of modules that no package speaks for."""
    count = 0
    for name, tree in known.items():
        own, above = listed_names(tree), known.get(name.rpartition(".")[0])
        if own is not None:
            count += len(own)
        elif above is None or listed_names(above) is None:
            count += len(shared_names(tree))
    return count


def imports_inside(tree: ast.Module) -> int:
    """Import statements inside functions."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {
        node for f in functions for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return len(inside)


def imported(name: str, tree: ast.Module, known: dict[str, ast.Module]) -> set[str]:
    """Modules of the project that a module names in any import statement."""
    found: set[str] = set()
    is_package = (SOURCE / Path(*name.split(".")) / "__init__.py").is_file()
    for node in _walked(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: len(name.split(".")) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            parts = [f"{base}.{alias.name}" for alias in node.names]
            found |= {part if part in known else base for part in parts}
    return {other for other in found if other in known and other != name}


def _walked(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            yield from _walked(child)


def circles(known: dict[str, ast.Module]) -> list[list[str]]:
    """Groups of modules that reach each other by imports."""
    arrows = {name: imported(name, tree, known) for name, tree in known.items()}
    reach = {name: _reach(name, arrows) for name in arrows}
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in arrows if a in reach[a]}
    return sorted(sorted(group) for group in groups)


def _reach(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found, todo = set(), list(arrows[start])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += arrows[name]
    return found


def typed_share() -> float:
    """Share of the product's lines that mypy is configured to check."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    checked = {p for entry in project["tool"]["mypy"]["files"] for p in _python_files(ROOT / entry)}
    product = set(_python_files(SOURCE / PRODUCT))
    return sum(map(_lines, checked & product)) / sum(map(_lines, product))


def _python_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def written() -> dict[str, Any]:
    """The measures that need nothing run."""
    known = modules()
    product = {name: tree for name, tree in known.items() if name.split(".")[0] == PRODUCT}
    weights = [p for p in SOURCE.glob("*/**/weights/*/*") if p.is_file()]
    golden = [p for p in (ROOT / "tests" / "golden").iterdir() if p.is_file()]
    return {
        "modules": len(known),
        "modules of the product": len(product),
        "lines": sum(_lines(p) for p in _python_files(SOURCE)),
        "lines of the product": sum(_lines(p) for p in _python_files(SOURCE / PRODUCT)),
        "public names": public_names(known),
        "public names of the product": public_names(product),
        "shared names": sum(len(shared_names(tree)) for tree in known.values()),
        "shared names of the product": sum(len(shared_names(tree)) for tree in product.values()),
        "imports inside functions": sum(map(imports_inside, known.values())),
        "circles": circles(known),
        "mypy share of the product": round(typed_share(), 3),
        "weights, MB": round(sum(p.stat().st_size for p in weights) / 1e6, 1),
        "golden files": len(golden),
    }


# --- what runs ---


class Trace:
    """Files and functions of the project that ran, and under which names arrays of one shape went."""

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        self.shape = shape
        self.functions: set[CodeType] = set()
        self.names: set[str] = set()
        self.climbs: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "return") and _is_ours(frame):
            self._note(frame) if event == "call" else None
            self._note_names(frame)

    def run(self, work: Callable[[], object]) -> Trace:
        """Run something under this trace, in all threads."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        return self

    @property
    def files(self) -> set[str]:
        return {code.co_filename for code in self.functions}

    def _note(self, frame: FrameType) -> None:
        if frame.f_code.co_name.startswith("<"):
            return
        self.functions.add(frame.f_code)
        here = frame.f_code.co_filename
        callers = [f.f_code for f in _stack(frame.f_back) if _is_ours(f)]
        between = next((i for i, code in enumerate(callers) if code.co_filename == here), None)
        if between:
            self.climbs.add((callers[0].co_qualname, frame.f_code.co_qualname))

    def _note_names(self, frame: FrameType) -> None:
        if self.shape is not None:
            self.names |= {name for name, value in frame.f_locals.items() if self._is_pixels(value)}

    def _is_pixels(self, value: object) -> bool:
        shape, dtype = getattr(value, "shape", None), str(getattr(value, "dtype", ""))
        return shape is not None and tuple(shape) == self.shape and "bool" not in dtype


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_ours(frame: FrameType) -> bool:
    """A function of this project; bodies of modules and of classes, which an import runs, have locals of their own kind."""
    code = frame.f_code
    return code.co_filename.startswith(str(SOURCE)) and bool(code.co_flags & inspect.CO_OPTIMIZED)


def trace_encode(folder: Path) -> Trace:
    """`eozip encode` in this process, cold."""
    source = made_up(folder)
    from eozip.cli import cli

    return Trace().run(lambda: cli(["encode", str(source), str(folder / "a.zarr")], standalone_mode=False))


def trace_decode(folder: Path) -> Trace:
    """`eozip decode` of what `trace_encode` wrote, its codec loaded by decoding once before."""
    from eozip.cli import cli

    def decode(name: str) -> None:
        cli(["decode", str(folder / "a.zarr"), str(folder / name)], standalone_mode=False)

    decode("once.tif")
    return Trace().run(lambda: decode("again.tif"))


def trace_array(_: Path) -> Trace:
    """`eozip.encode(dn)`, codec loaded."""
    import eozip

    dn = pixels()[None]
    eozip.encode(dn)
    return Trace(dn.shape).run(lambda: eozip.encode(dn))


def pixels() -> Any:
    """uint16 [12, 64, 64], smooth."""
    import numpy as np

    rows, columns = np.mgrid[:64, :64]
    bands = np.arange(12)[:, None, None]
    return (1500 + 100 * bands + 300 * np.sin(rows / 9 + bands) + 200 * np.cos(columns / 7)).astype(np.uint16)


def made_up(folder: Path) -> Path:
    """A GeoTIFF of `pixels` with the bands of Sentinel-2 Level-2A."""
    import rasterio
    from rasterio.transform import from_origin

    from eozip import sensors

    path, dn = folder / "a.tif", pixels()
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    with rasterio.open(
        path, "w", driver="GTiff", height=64, width=64, count=12, dtype="uint16", **place
    ) as file:
        file.write(dn)
        for index, name in enumerate(sensors.get("s2-l2a").band_names, start=1):
            file.set_band_description(index, name)
    return path


TRACES = {"encode": trace_encode, "decode": trace_decode, "array": trace_array}


def traced(name: str, folder: Path) -> dict[str, Any]:
    """What one trace found; in a process of its own, so that nothing is loaded yet."""
    command = [sys.executable, __file__, "--trace", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def ran() -> dict[str, Any]:
    """The measures of what runs."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: traced(name, Path(folder)) for name in TRACES}
    titles = {"encode": "eozip encode", "decode": "eozip decode", "array": "eozip.encode(dn)"}
    measures = {
        f"{titles[name]}: {what}": len(one[what])
        for name, one in found.items()
        for what in ("files", "functions")
    }
    for what in ("names", "climbs"):
        measures[f"eozip.encode(dn): {what}"] = len(found["array"][what])
    return {**measures, "names of dn": found["array"]["names"], "climbs": found["array"]["climbs"]}


def main() -> None:
    """Print the table, or (for itself) one trace."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trace", choices=TRACES)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    sys.path.insert(0, str(SOURCE))
    if asked.trace:
        trace = TRACES[asked.trace](asked.folder)
        functions = sorted({f"{code.co_filename}:{code.co_qualname}" for code in trace.functions})
        files = sorted(str(Path(name).relative_to(SOURCE)) for name in trace.files)
        print(
            json.dumps(
                {
                    "files": files,
                    "functions": functions,
                    "names": sorted(trace.names),
                    "climbs": sorted(trace.climbs),
                }
            )
        )
        return
    measures = {**written(), **ran()}
    print(
        json.dumps(measures, indent=1)
        if asked.json
        else "\n".join(f"{k:40} {v}" for k, v in measures.items())
    )


if __name__ == "__main__":
    main()
