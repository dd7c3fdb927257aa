"""Stores of strangers: whatever their metadata and zip files hold, eozip gives an answer or an error of its own.

Fast: the values and files of known reports, and a few hundred random ones. Slow: thousands.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from zarr.core.buffer import default_buffer_prototype

from eozip import outputs
from eozip.cli import cli
from eozip.cli.info import _lines, store_facts
from eozip.errors import EozipError, FormatError, LimitError, OutputError
from eozip.raster import open_scene
from eozip.store import append_store, budget_store, decode_store, describe, repair_store, verify_store
from rasterfiles import write_tif
from storefiles import NAMES, Coarse, change_record, coarse_codec, listed, make_store, scene_pixels

DOCUMENTS = ("zarr.json", "eozip/zarr.json", "reflectance/zarr.json", "time/zarr.json")
SMALL = {"chunk": 16, "gop": 2}
HOSTILE: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        255,
        65536,
        -32769,
        2**31,
        2**32,
        2**53 + 1,
        2**63,
        10**30,
        -(10**30),
    ),
    *(0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        "x",
        "0",
        "B01",
        "gray",
        "s2-l2a",
        "2021-13-45",
        "2021-07-01T00:00:00+02:00",
        "../../x",
        "a/b",
        "..",
        "\0",
    ),
    *(
        "\x1b]0;x\x07\x1b[2J",
        "\ud800",
        "é" * 300,
        "wkt(((",
        'GEOGCS["x"]',
        "EPSG:32632",
        "lossless",
        "tec-elic-small",
    ),
    *([], [[]], [0], [1, 2, 3, 4], [None] * 12, ["x"] * 12, [0.0] * 6, [1e308] * 6, [[0, 0, 0, 0, 0]] * 2),
    *({}, {"": {}}, {"ns": {"ns": "x", "bidx": "1"}}, {"a": 1}, {"name": "eozip.chunk"}, {"shape": [1, 2]}),
)


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    monkeypatch.setattr(
        outputs, "_flush_one", lambda path: None
    )  # thousands of stores that nobody needs tomorrow
    with coarse_codec():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """`s.zarr`, `s.zarr.zip` and `packed.zarr.zip` of three dates, and `new.tif`, a later one."""
    folder = tmp_path_factory.mktemp("base")
    paths = [folder / f"tile_2021070{day}.tif" for day in range(1, 5)]
    for seed, path in enumerate(paths):
        write_tif(path, scene_pixels(seed, (12, 16, 24)), NAMES, tags={"SEEN": path.stem}, scales=[1e-4] * 12)
    with coarse_codec():
        for name in ("s.zarr", "s.zarr.zip"):
            make_store(paths[:3], folder / name, Coarse.id, quality=50, **SMALL)
    pack(folder / "s.zarr", folder / "packed.zarr.zip")
    paths[3].rename(folder / "new_20210801.tif")
    return folder


def pack(store: Path, out: Path, method: int = zipfile.ZIP_DEFLATED) -> None:
    """A directory as another program would zip it."""
    with zipfile.ZipFile(out, "w", method) as archive:
        for file in sorted(path for path in store.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(store).as_posix())


def use(store: Path, new: Path, out: Path, replace: bool = True) -> list[BaseException]:
    """Everything that eozip can do with a store; what is raised that no EozipError is."""
    scene = open_scene(new)
    steps: list[Callable[[], object]] = [
        lambda: "\n".join(_lines(store_facts(store))),
        lambda: json.dumps(store_facts(store), allow_nan=False),
        lambda: verify_store(store),
        lambda: decode_store(store, out / "back"),
        lambda: decode_store(store, out / "one.tif", dates=[1]),
        lambda: append_store(store, scene),
        lambda: repair_store(store),
        lambda: verify_store(store, full=False),
    ]
    if replace:
        steps.append(lambda: make_store(new, store, Coarse.id, quality=50, overwrite=True, **SMALL))
    wrong: list[BaseException] = []
    for step in steps:
        try:
            step()
        except EozipError:
            continue
        except (Exception, RecursionError) as error:  # noqa: BLE001 - that is what is looked for
            wrong.append(error)
    return wrong


def faults(store: Path, base: Path, out: Path, what: str, replace: bool = True) -> list[str]:
    """Exceptions that are not ours, and files that nobody asked for."""
    out.mkdir(exist_ok=True)
    found = [f"{what}: {error!r:.300}" for error in use(store, base / "new_20210801.tif", out, replace)]
    extra = set(listed(out)) - {"back", "one.tif", "one.tif.aux.xml"}
    extra |= {name for name in listed(store.parent) if name.startswith(".")}
    shutil.rmtree(out)
    return [*found, *(f"{what}: left {name}" for name in extra)]


# --- hostile metadata ---


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return document


def change(document: Any, rng: random.Random) -> tuple[Any, str]:
    """One change: another value, or a key or item less, more or twice."""
    path = rng.choice(list(places(document)))
    found = document
    for key in path:
        found = found[key]
    kind = rng.choice(("value", "value", "value", "less", "more"))
    if kind == "less" and isinstance(found, (dict, list)) and found:
        key = rng.choice(list(found) if isinstance(found, dict) else range(len(found)))
        del found[key]
        return document, f"{path} without {key}"
    if kind == "more" and isinstance(found, list) and found:
        found.append(rng.choice(found))
        return document, f"{path} longer"
    value = rng.choice(HOSTILE)
    return put(document, path, value), f"{path} = {value!r:.60}"


def hostile_copy(base: Path, store: Path, rng: random.Random) -> str:
    """A store with one to three hostile values; the record in both of its places or in one."""
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(base / "s.zarr", store)
    said = []
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(DOCUMENTS)
        document, what = change(json.loads((store / key).read_text()), rng)
        (store / key).write_text(json.dumps(document))
        said.append(f"{key} {what}")
    mode = rng.choice(("as it is", "not consolidated", "consolidated alike"))
    group = json.loads((store / "zarr.json").read_text())
    if isinstance(group, dict) and isinstance(group.get("consolidated_metadata"), dict):
        if mode == "not consolidated":
            del group["consolidated_metadata"]
        elif mode == "consolidated alike" and isinstance(
            group["consolidated_metadata"].get("metadata"), dict
        ):
            for key in DOCUMENTS[1:]:
                name = key.removesuffix("/zarr.json")
                group["consolidated_metadata"]["metadata"][name] = json.loads((store / key).read_text())
        (store / "zarr.json").write_text(json.dumps(group))
    return f"{mode}: {'; '.join(said)}"


def run_metadata(base: Path, folder: Path, count: int, seed: int) -> list[str]:
    found: list[str] = []
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        store = folder / "hostile.zarr"
        what = hostile_copy(base, store, rng)
        if rng.random() < 0.2:
            pack(store, folder / "hostile.zarr.zip")
            shutil.rmtree(store)
            store = folder / "hostile.zarr.zip"
        found += faults(store, base, folder / "out", f"{number}: {what}", number % 10 == 0)
        (shutil.rmtree if store.is_dir() else Path.unlink)(store)
    return found


MANY = [pytest.param(1000, seed, marks=pytest.mark.slow) for seed in (1, 2, 3)]


@pytest.mark.parametrize(("count", "seed"), [(60, 0), *MANY])
def test_random_metadata(base, tmp_path, count, seed):
    assert run_metadata(base, tmp_path, count, seed) == []


KNOWN: dict[str, Callable[[dict[str, Any]], object]] = {
    "tags as a list": lambda r: put(r, ("geotiff", "tags"), [1, 2, 3]),
    "band tags as a number": lambda r: put(r, ("geotiff", "band_tags", 6), 5),
    "scales as text": lambda r: put(r, ("geotiff", "profile", "scales", 0), "x"),
    "colour interpretation 5": lambda r: put(r, ("geotiff", "profile", "colorinterp", 0), 5),
    "a CRS that does not parse": lambda r: put(r, ("geotiff", "profile", "crs"), "wkt((("),
    "a transform of four": lambda r: put(r, ("geotiff", "profile", "transform"), [0, 0, 0, 0]),
    "a flat transform": lambda r: put(r, ("geotiff", "profile", "transform"), [0.0] * 6),
    "files as numbers": lambda r: put(r, ("geotiff", "files", 0), 0),
    "a file in another folder": lambda r: put(r, ("geotiff", "files", 0), "../x.tif"),
    "band order infinite": lambda r: put(r, ("geotiff", "band_order", 0), float("inf")),
    "facts as a list": lambda r: put(r, ("eozip",), []),
    "chunks as text": lambda r: put(r, ("eozip", "chunks"), "x"),
    "psnr as text": lambda r: put(r, ("eozip", "psnr"), "x"),
    "psnr infinite": lambda r: put(r, ("eozip", "band_psnr", 10), float("inf")),
    "valid pixels as text": lambda r: put(r, ("eozip", "valid_pixels", 0), "x"),
    "a fact more, infinite": lambda r: put(r, ("eozip", "other"), float("inf")),
    "dates with a time zone": lambda r: put(r, ("geotiff", "dates", 0), "2021-07-01T00:00:00+02:00"),
    "more decibels than numbers have": lambda r: put(r, ("eozip", "band_psnr", 5), 2**31),
    "groups of no date": lambda r: put(r, ("eozip", "groups"), [0, 3]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_hostile_records_are_named(base, tmp_path, name):
    store, out = tmp_path / "s.zarr", tmp_path / "out"
    shutil.copytree(base / "s.zarr", store)
    change_record(store, KNOWN[name])
    assert faults(store, base, out, name) == []
    if name != "a flat transform":
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(base / "s.zarr", store)
        change_record(store, KNOWN[name])
        with pytest.raises(FormatError, match=r"eozip/zarr\.json|finite|JSON"):
            describe(store)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * 100_000,
        '{"attributes": {"x": ' + "9" * 10_000 + "}}",
        '{"node_type": "group", "attributes": {}, "consolidated_metadata": []}',
        "\x00",
        '"\\ud800"',
    ],
)
@pytest.mark.parametrize("key", DOCUMENTS)
def test_documents_that_are_none(base, tmp_path, key, text):
    store = tmp_path / "s.zarr"
    shutil.copytree(base / "s.zarr", store)
    (store / key).write_text(text)
    assert faults(store, base, tmp_path / "out", f"{key}: {text[:40]!r}") == []


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "{}", '{"codecs": 5}', '{"codecs": [{"name": "sharding_indexed"}]}']
)
def test_a_budget_over_hostile_documents(base, tmp_path, text):
    """zarr may refuse such stores in its own words; what eozip adds says it in ours."""
    store = tmp_path / "s.zarr"
    shutil.copytree(base / "s.zarr", store)
    (store / "reflectance/zarr.json").write_text(text)
    reader = budget_store(store, 1)
    for key in ("reflectance/zarr.json", "reflectance/c/0/0/0/0"):
        try:
            found = asyncio.run(reader.get(key, default_buffer_prototype()))
        except FormatError:
            continue
        assert found is not None


def test_a_document_beyond_all_need_is_not_read(base, tmp_path):
    store = tmp_path / "s.zarr"
    shutil.copytree(base / "s.zarr", store)
    with (store / "zarr.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(LimitError, match="metadata"):
        describe(store)


def test_a_terminal_sees_no_escape_sequences(base, tmp_path):
    store, evil = tmp_path / "s.zarr", "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"
    shutil.copytree(base / "s.zarr", store)

    def rename(record: dict[str, Any]) -> None:
        record["geotiff"]["profile"]["band_names"][3] = evil
        record["geotiff"]["profile"]["crs"] = f'LOCAL_CS["{evil}"]'
        record["eozip"]["eozip_version"] = evil
        record["eozip"][evil] = evil
        record["eozip"]["inpainted"] = {"mask": [evil]}

    change_record(store, rename)
    for arguments in (["info"], ["info", "--json"], ["verify"], ["decode", "--bands", "9999"]):
        command = [
            arguments[0],
            str(store),
            *([str(tmp_path / "b")] if "decode" in arguments else []),
            *arguments[1:],
        ]
        result = CliRunner().invoke(cli, command, color=True)
        assert "\x1b" not in result.output
        assert result.output.replace("\n", "").isprintable()


# --- hostile zip files ---


def run_zips(base: Path, folder: Path, count: int, seed: int) -> list[str]:
    """Random bytes in the structures of zip files, packed or not, and cuts."""
    found: list[str] = []
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        data = bytearray((base / rng.choice(("s.zarr.zip", "packed.zarr.zip"))).read_bytes())
        marks = [
            data.find(mark, rng.randrange(len(data)))
            for mark in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06")
        ]
        marks = [mark for mark in marks if mark >= 0] or [0]
        for _ in range(rng.randint(1, 4)):
            at = rng.choice(marks) + rng.randrange(48) if rng.random() < 0.8 else rng.randrange(len(data))
            data[min(at, len(data) - 1)] = rng.choice((0, 1, 8, 9, 14, 99, 127, 255, rng.randrange(256)))
        if rng.random() < 0.1:
            del data[rng.randrange(len(data)) :]
        store = folder / "hostile.zarr.zip"
        store.write_bytes(data)
        found += faults(store, base, folder / "out", f"zip {number}", number % 10 == 0)
        store.unlink()
    return found


@pytest.mark.parametrize(("count", "seed"), [(60, 0), *MANY])
def test_random_bytes_in_zip_files(base, tmp_path, count, seed):
    assert run_zips(base, tmp_path, count, seed) == []


def crafted(base: Path, out: Path, kind: str) -> None:
    """A zip file that a stranger made."""
    source = base / "s.zarr.zip"
    data = bytearray(source.read_bytes())
    at = data.find(b"PK\x01\x02")
    while kind in ("encrypted", "version", "method", "huge", "offset") and at >= 0:
        if kind == "encrypted":
            data[at + 8] |= 1
        elif kind == "version":
            data[at + 6] = 215
        elif kind == "method":
            data[at + 10] = 97
        elif kind == "huge":
            data[at + 20 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little") * 2
        else:
            data[at + 42 : at + 46] = (0x7FFFFFFF).to_bytes(4, "little")
        at = data.find(b"PK\x01\x02", at + 4)
    out.write_bytes(data)
    if kind == "deflate":
        packed = bytearray((base / "packed.zarr.zip").read_bytes())
        for start in range(60, len(packed) - 2000, 97):
            packed[start] ^= 0x55
        out.write_bytes(packed)
    if kind in ("twice", "slip", "long names"):
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
            extra = {"twice": "zarr.json", "slip": "../../evil.txt", "long names": "x" * 60_000}[kind]
            new.writestr(extra, b"evil")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "kind",
    ["encrypted", "version", "method", "huge", "offset", "deflate", "twice", "slip", "long names"],
)
def test_crafted_zip_files(base, tmp_path, kind):
    store = tmp_path / "in" / "s.zarr.zip"
    store.parent.mkdir()
    crafted(base, store, kind)
    assert faults(store, base, tmp_path / "out", kind) == []
    assert listed(tmp_path) == ["in"]


@pytest.mark.parametrize("key", ["zarr.json", "eozip/zarr.json", "reflectance/c/0/0/0/0"])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_packed_bomb_is_refused_before_it_is_unpacked(base, tmp_path, key, method, monkeypatch):
    bomb = tmp_path / "bomb.zarr.zip"
    with zipfile.ZipFile(base / "s.zarr.zip") as old, zipfile.ZipFile(bomb, "w", method) as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data + b" " * (1 << 26) if name == key else data)
    read: list[int] = []
    real = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda self, name: (read.append(len(data := real(self, name))), data)[1]
    )
    try:
        failures = verify_store(bomb).failures
    except LimitError as error:
        failures = [str(error)]
    assert any("times its packed" in line or "of metadata" in line for line in failures)
    assert use(bomb, base / "new_20210801.tif", tmp_path) == []
    assert max(read, default=0) < 1 << 20


def test_a_packed_shard_is_unpacked_once(base, tmp_path, monkeypatch):
    read: list[str] = []
    real = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: (read.append(name), real(self, name))[1])
    assert verify_store(base / "packed.zarr.zip").ok
    shards = [name for name in read if "/c/" in name and name.startswith("reflectance")]
    assert len(shards) == len(set(shards))


@pytest.mark.parametrize("name", ["s.zarr.zip", "packed.zarr.zip"])
def test_good_zip_files_still_work(base, tmp_path, name):
    shutil.copy(base / name, tmp_path / name)
    append_store(tmp_path / name, open_scene(base / "new_20210801.tif"))
    assert verify_store(tmp_path / name).ok
    assert describe(tmp_path / name).grid.shape[0] == 4
    other = io.BytesIO((tmp_path / name).read_bytes())
    assert zipfile.ZipFile(other).testzip() is None
    with pytest.raises(OutputError):
        make_store(base / "new_20210801.tif", tmp_path / name)
