"""What lies beside the stores of an archive, in OUT/.eozip-archive.

settings.json             what was asked for when the archive was begun; a run with other settings is refused
jobs/STORE/c.T.0.Y.X      a finished job of a store that is not published yet
jobs/STORE/items          inputs of a store that is being published
stores/STORE              which inputs a store holds, with their fingerprints
failed.json               inputs that were set aside, with their reasons
run                       who writes at this moment; only while a run lives
status.json, report.json  for people
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from eozip.arguments import Place, PlaceLike, place
from eozip.errors import FormatError, InputError, OutputError
from eozip.keys import LEASE, Keys, LocalKeys, keys_of
from eozip.outputs import locked

FOLDER = ".eozip-archive"
RUN = f"{FOLDER}/run"
VERSION = 1
_STATUS_EVERY = 2.0  # seconds


@dataclass
class Status:
    """Where a run stands.

    Attributes:
        state: "running", "finished", or "stopped" where it was killed or ended with an error.
        items: inputs in all; `done` of them are in published stores, `skipped` of these were before, `failed` set aside.
        stores: stores that there is something to do for; `published` of them are complete.
        jobs: shards that are to be coded, as far as they are planned; `jobs_done` of them are.
        bytes_in: of the raw pixels of the jobs done; `bytes_planned` of all; `bytes_out` of their streams.
        seconds: since the run began.
        dashboard: link of Dask's dashboard, if there is one.
        message: the last thing worth saying.
    """

    state: str = "running"
    items: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    stores: int = 0
    published: int = 0
    jobs: int = 0
    jobs_done: int = 0
    bytes_in: int = 0
    bytes_planned: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    dashboard: str | None = None
    message: str = ""


@dataclass
class Record:
    """Reads and writes what lies beside the stores.

    Attributes:
        where: the archive's folder.
        keys: below it.
        status: written now and then.
    """

    where: Place
    keys: Keys
    status: Status = field(default_factory=Status)
    _started: float = field(default_factory=time.monotonic)
    _written: float = 0.0

    def store(self, name: str) -> Place:
        """Where a store lies."""
        return self.where / name

    def settle(self, asked: Mapping[str, Any]) -> None:
        """Writes the settings of a new archive, or compares them with those it was begun with.

        Raises:
            InputError: they differ; the message names each.
            OutputError: somebody else began an archive there just now.
        """
        wanted = {"version": VERSION, **asked}
        have = self._document(f"{FOLDER}/settings.json")
        if have is None:
            if not self.keys.create(f"{FOLDER}/settings.json", _as_bytes(wanted)):
                raise OutputError(f"{self.where}: another eozip began an archive there just now; run again")
            return
        other = [name for name in {**have, **wanted} if have.get(name) != wanted.get(name)]
        if other:
            told = "; ".join(
                f"{name}: expected {have.get(name)!r}, got {wanted.get(name)!r}" for name in other
            )
            raise InputError(
                f"{self.where} was begun with other settings, which are never mixed: {told}. Give those it was begun with, "
                "or archive into another folder"
            )

    def job(self, store: str, shard: Sequence[int]) -> dict[str, Any] | None:
        """What a job left, whatever its id; None where it is not finished."""
        return self._document(self.job_key(store, shard))

    def jobs(self, store: str) -> list[str]:
        """Keys of the finished jobs of a store."""
        return list(self.keys.sizes(f"{FOLDER}/jobs/{store}/"))

    def job_key(self, store: str, shard: Sequence[int]) -> str:
        """Where a job says that it is finished."""
        return f"{FOLDER}/jobs/{store}/c.{'.'.join(map(str, shard))}"

    def finish_job(self, store: str, shard: Sequence[int], found: Mapping[str, Any]) -> None:
        """Says that a job is finished."""
        self.keys.put(self.job_key(store, shard), _as_bytes(found))

    def forget_job(self, store: str, shard: Sequence[int]) -> None:
        """Says that a job is not finished."""
        self.keys.remove([self.job_key(store, shard)])

    def held(self, store: str) -> dict[str, dict[str, Any]]:
        """Which inputs a published store holds: what they are by name."""
        return (self._document(f"{FOLDER}/stores/{store}") or {}).get("items", {})

    def all_held(self) -> dict[str, dict[str, Any]]:
        """The same of all stores."""
        found: dict[str, dict[str, Any]] = {}
        for key in self.keys.sizes(f"{FOLDER}/stores/"):
            document = self._document(key) or {}
            for name, item in document.get("items", {}).items():
                found[name] = {**item, "store": key.rsplit("/", 1)[-1]}
        return found

    def hold(self, store: str, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Notes inputs that a published store holds."""
        if items:
            self.keys.put(f"{FOLDER}/stores/{store}", _as_bytes({"items": {**self.held(store), **items}}))

    def forget_store(self, store: str) -> None:
        """Says that a store holds nothing."""
        self.keys.remove([f"{FOLDER}/stores/{store}"])

    def announce(self, store: str, dates: int, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Says which inputs a store that is about to be published holds, and how many dates it has then."""
        self.keys.put(f"{FOLDER}/jobs/{store}/items", _as_bytes({"dates": dates, "items": items}))

    def announced(self) -> list[str]:
        """Stores that were about to be published, and whose jobs still have records."""
        keys = self.keys.sizes(f"{FOLDER}/jobs/")
        return [key.split("/")[-2] for key in keys if key.endswith("/items")]

    def published(self, store: str, dates: int) -> dict[str, dict[str, Any]]:
        """Inputs of a store of so many dates that was published by a run which was killed before it noted them."""
        told = self._document(f"{FOLDER}/jobs/{store}/items") or {}
        return told.get("items", {}) if told.get("dates") == dates else {}

    def forget_jobs(self, store: str) -> None:
        """A store is published, and its jobs say nothing more; what was announced goes last."""
        self.keys.remove(sorted(self.jobs(store)))

    def failed(self) -> dict[str, str]:
        """Inputs that were set aside, and why."""
        return self._document(f"{FOLDER}/failed.json") or {}

    def fail(self, failed: Mapping[str, str]) -> None:
        """Notes inputs that are set aside; all of them, sorted."""
        if failed:
            self.keys.put(f"{FOLDER}/failed.json", _as_bytes(dict(sorted(failed.items()))))
        else:
            self.keys.remove([f"{FOLDER}/failed.json"])

    def tell(self, *, now: bool = False) -> None:
        """Writes the status, but not too often."""
        seconds = time.monotonic() - self._started
        if now or seconds - self._written > _STATUS_EVERY:
            self._written = self.status.seconds = seconds
            self.keys.put(f"{FOLDER}/status.json", _as_bytes(asdict(self.status)))

    def report(self, found: Mapping[str, Any]) -> None:
        """Writes the report of a run that ended."""
        self.keys.put(f"{FOLDER}/report.json", _as_bytes(found))

    def _document(self, key: str) -> dict[str, Any] | None:
        data = self.keys.get(key)
        if data is None:
            return None
        try:
            found = json.loads(data)
        except ValueError as error:
            raise FormatError(
                f"{self.where}/{key}: expected JSON, got {error}; another program changed it: remove it, and run again"
            ) from error
        if not isinstance(found, dict):
            raise FormatError(
                f"{self.where}/{key}: expected a JSON object, got {found!r:.80}; remove it, and run again"
            )
        return found


def open_record(out: PlaceLike) -> Record:
    """The record of an archive, new or begun.

    Raises:
        OutputError: the folder holds something else.
    """
    where = place("out", out)
    if where.name.lower().endswith((".zarr", ".zip", ".tif", ".json")):
        raise OutputError(
            f"{where}: expected a folder for stores, got the name of a single file or store; name a folder"
        )
    keys = keys_of(where)
    _check_folder(where, keys)
    return Record(where, keys)


def _check_folder(where: Place, keys: Keys) -> None:
    """Nothing, or an archive."""
    if keys.get(f"{FOLDER}/settings.json") is not None:
        return
    if isinstance(where, Path) and where.exists() and not where.is_dir():
        raise OutputError(f"{where}: expected a folder for stores, got a file; choose another name")
    if isinstance(where, Path):
        others = [p.name for p in where.iterdir() if p.name != FOLDER] if where.is_dir() else []
    else:
        others = [key for key in keys.sizes() if not key.startswith(f"{FOLDER}/")]
    if others:
        raise OutputError(
            f"{where} holds something else ({others[0]}) and no archive of eozip; choose an empty or a new folder"
        )


def make_folder(record: Record) -> None:
    """Makes the folder of a new archive.

    Raises:
        OutputError: it cannot be made, or nothing can be written into it.
    """
    if not isinstance(record.where, Path):
        return
    try:
        record.where.mkdir(parents=True, exist_ok=True)
        (record.where / FOLDER).mkdir(exist_ok=True)
        (record.where / RUN).touch()
    except OSError as error:
        raise OutputError(
            f"{record.where}: expected a folder that can be written, got {error.strerror or error}; check permissions and "
            "free space, or choose another"
        ) from error


def clear_parts(record: Record) -> None:
    """Removes what killed writers left behind; the run is the only one."""
    if isinstance(record.keys, LocalKeys):
        record.keys.clear_parts()


def read_status(out: PlaceLike, watch: float = LEASE) -> Status:
    """Where the run of an archive stands, or stood when it ended.

    Args:
        out: the archive.
        watch: seconds for which a run on an object store is watched for a sign of life.

    Raises:
        InputError: there is no archive.
    """
    where = place("out", out)
    record = Record(where, keys_of(where))
    document = record._document(f"{FOLDER}/status.json")
    if document is None and record.keys.get(f"{FOLDER}/settings.json") is None:
        raise InputError(f"{where}: expected an archive of eozip, got none that was ever run; check the name")
    known = {f.name for f in fields(Status)}
    status = Status(**{name: value for name, value in (document or {}).items() if name in known})
    if status.state == "running" and not _lives(record, watch):
        status.state = "stopped"
    return status


def _lives(record: Record, watch: float) -> bool:
    """Whether a run goes on: it holds the kernel's lock, or renews its lease."""
    if isinstance(record.where, Path):
        with suppress(OSError), locked(record.where / RUN):
            return False
        return (record.where / RUN).exists()
    before, waited = record.keys.get(RUN), 0.0
    while before is not None and waited < watch:
        time.sleep(watch / 20)
        waited += watch / 20
        if record.keys.get(RUN) != before:
            return True
    return False


def _as_bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, allow_nan=False).encode()
