"""A store of an archive is published: what its jobs found is summed, and all but the shards written, its group last."""

from __future__ import annotations

from collections.abc import Sequence

from eozip.archive.inputs import read_all
from eozip.archive.plan import StorePlan
from eozip.archive.record import Record
from eozip.errors import EozipError, OutputError
from eozip.store.append import append_run, check_layers, grown_facts, new_nodes
from eozip.store.coding import Run, stream_offsets, tally_of
from eozip.store.description import Description
from eozip.store.documents import ARRAY
from eozip.store.files import GROUP, Plain
from eozip.store.grid import Shape, alignment, samples
from eozip.store.joined import placed, put_values, scene_dates
from eozip.store.metadata import band_labels, metadata_keys
from eozip.store.overviews import Overviews
from eozip.store.pixels import open_pixels
from eozip.store.records import extras_of, grown
from eozip.store.repair import grown_record, rewritten_keys
from eozip.store.spread import add_part
from eozip.store.writer import run_facts


def gathered(plan: StorePlan) -> Run:
    """What one run over all new dates would know, summed in the order of the shards."""
    run = _empty_run(plan)
    for shard in plan.shards():
        part = plan.parts[shard]
        start = max(shard[0] * plan.grid.shard[0], plan.first) - plan.first
        add_part(run, part, start)
    return run


def _empty_run(plan: StorePlan) -> Run:
    if plan.found is not None and plan.new is not None:
        run = append_run(plan.found, plan.new, _quiet, None)
    else:
        tally = tally_of(plan.codec, plan.joined.scene, plan.order)
        offsets = stream_offsets(plan.joined.scene)
        run = Run(plan.codec, plan.grid, tally, _quiet, offsets=offsets, hold=plan.holding())
        run.levels = Overviews(plan.levels, plan.codec, plan.joined.scene.dtype) if plan.levels else None
    run.is_masked = plan.mask is not None and plan.asked.drops
    return run


def _quiet(done: int, total: int) -> None:
    """The client counts jobs."""


class _Put(Plain):
    """A container whose keys are written at once, into one store of an archive."""

    def __init__(self, record: Record, store: str) -> None:
        super().__init__()
        self._record, self._store = record, store

    def put(self, key: str, data: bytes) -> None:
        self._record.keys.put(f"{self._store}/{key}", data)
        self.keys.append(key)


def publish(record: Record, plan: StorePlan, run: Run) -> None:
    """Writes all of a store but its shards, and the group's document last.

    Raises:
        OutputError: somebody else put a store there.
    """
    container = _Put(record, plan.name)
    keys = (
        _new_keys(plan, run, container)
        if plan.found is None
        else _grown_keys(plan, plan.found, run, container)
    )
    group = keys.pop(GROUP)
    record.announce(plan.name, plan.grid.shape[0], {one.item.name: one.noted() for one in plan.seen})
    for key, data in keys.items():
        container.put(key, data)
    if plan.found is None:
        _clear(record, plan, container.keys)
        if not record.keys.create(f"{plan.name}/{GROUP}", group):
            raise OutputError(
                f"{record.store(plan.name)} exists by now, and was not before; it stays as it is: choose another folder"
            )
    else:
        _clear_behind(record, plan)
        record.keys.put(f"{plan.name}/{GROUP}", group)


def _new_keys(plan: StorePlan, run: Run, container: _Put) -> dict[str, bytes]:
    scene = plan.joined.scene
    layers = placed(plan.joined.product.beside, scene, plan.grid, alignment(plan.codec.grids))
    labels = band_labels(scene.select(plan.order), plan.codec.sensor)
    extras = extras_of(plan.joined, layers, samples(plan.grid.shape, plan.codec.grids), labels)
    if extras is not None:
        run.beside_bytes = put_values(container, extras.layers)
    facts = run_facts(run, plan.facts)
    return metadata_keys(scene, plan.order, plan.grid, plan.codec, facts, run.date_dropped(), extras=extras)


def _grown_keys(plan: StorePlan, found: Description, run: Run, container: _Put) -> dict[str, bytes]:
    new = plan.new
    if new is None:
        raise ValueError("a store that grows has new dates")
    layers = placed(new.joined.product.beside, new.joined.scene, run.grid, alignment(found.codec.grids))
    with open_pixels(found) as pixels:
        check_layers(pixels.files, layers)
        run.beside_bytes = put_values(container, layers, run.first)
        product = grown(found, new.joined, new.positions, new.offsets, layers)
        more = sum(part["more"] for part in plan.parts.values())
        grown_to = grown_record(found, new.scene, grown_facts(found, run, more), product)
        keys = rewritten_keys(pixels.files, grown_to, new_nodes(found, new, layers, run.grid.shape[0]))
    return {**{key: data for key, data in keys.items() if key != GROUP}, GROUP: keys[GROUP]}


def unreadable_layers(plan: StorePlan) -> dict[str, str]:
    """Inputs of dates of which something beside the bands cannot be read, and why."""
    bad: dict[str, str] = {}
    owners = plan.owners()
    for layer in plan.joined.product.beside:
        for index, date in enumerate(layer.dates):
            try:
                read_all(scene_dates(layer.scene, slice(index, index + 1)))
            except (EozipError, OSError) as error:
                bad |= {plan.seen[k].item.name: str(error) for k in owners[date]}
    return bad


def lost_shards(record: Record, plan: StorePlan) -> list[Shape]:
    """Shards of finished jobs of which something is not there any more: others removed it."""
    have = record.keys.sizes(f"{plan.name}/").keys()
    lost = []
    for shard, part in plan.parts.items():
        own = [f"{ARRAY}/{plan.grid.key(shard)}"] if part["streams"] else []
        if any(f"{plan.name}/{key}" not in have for key in (*own, *part["levels"])):
            lost.append(shard)
    return lost


def _clear(record: Record, plan: StorePlan, written: Sequence[str]) -> None:
    """Removes keys of a plan that was given up: of other inputs, killed before its store was published."""
    shards = {f"{ARRAY}/{plan.grid.key(shard)}" for shard, part in plan.parts.items() if part["streams"]}
    levels = {key for part in plan.parts.values() for key in part["levels"]}
    wanted = {f"{plan.name}/{key}" for key in (*written, *shards, *levels)}
    record.keys.remove([key for key in record.keys.sizes(f"{plan.name}/") if key not in wanted])


def _clear_behind(record: Record, plan: StorePlan) -> None:
    """The same of an append: shards behind the last date."""
    last = max(shard[0] for shard in plan.shards())
    for path in (ARRAY, *(level.path for level in plan.levels)):
        below = f"{plan.name}/{path}/c/"
        firsts = ((key, key.removeprefix(below).partition("/")[0]) for key in record.keys.sizes(below))
        record.keys.remove([key for key, first in firsts if first.isdigit() and int(first) > last])
