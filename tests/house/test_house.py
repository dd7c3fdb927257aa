"""The house: what an import costs, what the wheel holds, and what the project must not depend on."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from eozip import sensors

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = ("torch", "rasterio", "zarr", "xarray", "dask", "matplotlib", "imagecodecs", "huggingface_hub")


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import eozip", "import eozip; eozip.encode; eozip.decode; eozip.load"]
)
def test_import_is_light(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "eozip" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    "module", ["eozip.cli", "eozip.hub", "eozip.raster", "eozip_lab.simulate", "eozip.bitstream"]
)
def test_torch_stays_out_of_what_needs_none(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert "eozip" in loaded
    assert "torch" not in loaded


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that a user would install, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("eozip-*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_sensors_and_every_source(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    assert {f"eozip/sensors/{name}.toml" for name in sensors.names()} <= held
    assert {path.relative_to(ROOT / "src").as_posix() for path in SOURCES} <= held


def test_wheel_holds_weights_recipes_and_licence(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    folders = ("eozip/weights", "eozip_lab/train/recipes")
    data = [p for folder in folders for p in (ROOT / "src" / folder).rglob("*") if p.is_file()]
    shipped = {p.relative_to(ROOT / "src").as_posix() for p in data if p.suffix != ".pyc"}
    assert shipped <= held
    assert any(name.endswith("/LICENSE") for name in held)


def test_wheel_stays_small(wheel: zipfile.ZipFile) -> None:
    weights = sum(info.file_size for info in wheel.infolist() if "/weights/" in info.filename)
    assert weights < 18_000_000
    assert max(info.file_size for info in wheel.infolist()) < 25_000_000


def test_sources_do_not_know_the_shared_folder() -> None:
    """Only training recipes have a default place for data, and the environment overrides it."""
    outside = [p for p in SOURCES if "train" not in p.parts]
    assert len(outside) > 10
    named = [str(p) for p in outside if re.search(r"\.\./shared|/work/", p.read_text())]
    assert named == []


def test_no_source_has_a_bare_or_broad_except() -> None:
    broad = re.compile(r"^\s*except\s*(?:\(?\s*(?:BaseException|Exception)\b[^:]*)?:", re.MULTILINE)
    named = [f"{p.name}: {match.group().strip()}" for p in SOURCES for match in broad.finditer(p.read_text())]
    assert named == []


def test_files_stay_short_enough_to_read() -> None:
    long = {str(p): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 600}
    assert long == {}


def test_imports_inside_functions_say_why() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for text in [path.read_text()]
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and "#" not in text.splitlines()[node.lineno - 1]
    ]
    assert silent == []


def test_no_modules_import_each_other() -> None:
    """Imports inside functions count too."""
    house = runpy.run_path(str(ROOT / "tools" / "house.py"))
    assert house["circles"](house["modules"]()) == []


def test_entry_points_exist() -> None:
    project = PROJECT["project"]
    targets = [*project["scripts"].values()]
    targets += [target for group in project["entry-points"].values() for target in group.values()]
    assert len(targets) >= 3
    for target in targets:
        module, name = target.split(":")
        done = loaded_by(f"import {module}; {module}.{name}")
        assert "eozip" in done


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(
        re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", line).groups() for line in lines if line[:1] not in "# "
    )
    pinned = {_plain(name) for name in pins}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(r for extra in extras.values() for r in extra)]
    names = {_plain(re.match(r"[\w.-]+", requirement).group()) for requirement in wanted} - {"eozip"}
    assert len(names) > 15
    assert names <= pinned
    assert "+" not in pins["torch"]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_changelog_states_the_bitstream_of_every_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert sections
    for section in sections:
        assert re.search(r"^Bitstream: version \d+", section, re.MULTILINE), section.splitlines()[0]
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence


def test_ci_runs_the_command_that_people_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line.split("#")[0].strip() for line in script.read_text().splitlines()]
    assert any(re.match(r"(exec )?make test(\s|$)", command) for command in commands)


@pytest.mark.parametrize("target", ["help", "demo", "test", "test-slow", "test-gpu", "bench", "clean"])
def test_make_knows_its_targets(target: str) -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"make {target} ", listed)


def test_the_index_of_torch_is_asked_for_torch_alone() -> None:
    """pip tries an index that cannot be reached for every package again, if it is one of several."""
    dry = ["make", "-n", "setup", "TORCH_INDEX=https://torch.invalid/cpu", "READY=never/made", "BIN=bin"]
    told = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = told.replace("\\\n", " ").splitlines()
    asking = [line for line in commands if "--index-url 'https://torch.invalid/cpu'" in line]
    assert len(asking) == 1
    assert "--no-deps" in asking[0]
    assert "-e '.[dev]'" not in asking[0]
    first = (ROOT / "README.md").read_text().partition("## Five minutes")[2].partition("## In Python")[0]
    assert "export TORCH_INDEX=https://" in first
    assert "EXTRA_INDEX" not in first


def test_every_point_of_the_faults_names_tests_that_exist():
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def test_(\w+)", file.read_text(), re.MULTILINE)
    }
    rows = re.findall(
        r"^\| ([A-E]\d+) .*?\| (.*) \|$", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE
    )
    assert [int(point[1:]) for point, _ in rows] == list(range(1, 37))
    named = {name for _, tests in rows for name in re.findall(r"`(\w{12,})`", tests)}
    assert named - defined == set()
