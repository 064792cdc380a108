"""Whether declared curated tables make sense: as much of it as their text tells, before any process runs them. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from arterial.api.controlplane.v1 import resource_pb2
from chassis.lineage.definition import SqlNotUnderstood, logical_names
from chassis.lineage.selects import selected
from chassis.resources import Key

ZONE, LAKE = "lake/curated/", "lake/"
# The one curated table that no topic is named like.
TRIPS = "trips"
# Columns that the tables themselves have (services/ingestion/derivation.py).
EVENT_DATE = "event_date"
Existing = Mapping[Key, resource_pb2.Resource]
Told = Iterable[tuple[str, str]]


def curated_table(resource: resource_pb2.Resource, wanted: Existing) -> Told:
    """What is wrong with a table, as (path, why)."""
    name, spec = resource.metadata.name, resource.curated_table
    yield from _name(name, wanted)
    read = logical_names(spec.sql)
    if not read:
        yield "spec.sql", "reads no dataset: logical names stand in backticks, for example `lake/curated/trips`"
        return
    for column, path in [(spec.time_column, "spec.timeColumn"), *((key, "spec.keys") for key in spec.keys)]:
        if column == EVENT_DATE or column.startswith("_"):
            yield path, f"{column} cannot be declared: event_date and names that begin with _ are the table's own"
    try:
        found = selected(spec.sql)
    except SqlNotUnderstood as error:
        yield "spec.sql", str(error)
        return
    for dataset in found.datasets:
        if not dataset.startswith(LAKE):
            yield (
                "spec.sql",
                f"reads {dataset}, which is no table of the lake: logical names stand in backticks, for example `lake/curated/trips`",
            )
    if found.columns is not None:
        yield from _columns(resource, found.columns)
    cycle = _cycle(name, wanted)
    if cycle:
        yield "spec.sql", f"follows from itself: {' from '.join(cycle)}"


def collides(name: str, wanted: Existing) -> str:
    """Why there can be no topic of that name; empty if there can: its removal drops the curated table of its name, also a former one."""
    return f"CuratedTable/{name} makes the table curated/{name}" if ("CuratedTable", name) in wanted else ""


def _name(name: str, wanted: Existing) -> Told:
    if "/" in name or ".." in name:
        yield "metadata.name", "must be the name of one table: without / and .."
    elif name == TRIPS:
        yield "metadata.name", "the table curated/trips is made of the trip events"
    elif ("Topic", name) in wanted:
        yield "metadata.name", f"the table curated/{name} is that of Topic/{name}"


def _columns(resource: resource_pb2.Resource, columns: tuple[str, ...]) -> Told:
    spec, given = resource.curated_table, ", ".join(columns)
    if spec.time_column not in columns:
        yield "spec.timeColumn", f"the SELECT gives no column {spec.time_column}; it gives {given}"
    for place, key in enumerate(spec.keys):
        if key not in columns:
            yield f"spec.keys[{place}]", f"the SELECT gives no column {key}; it gives {given}"
    for column in columns:
        if column.startswith("_"):
            yield "spec.sql", f"gives a column {column}: names that begin with _ are the table's own"


def _cycle(name: str, wanted: Existing) -> list[str]:
    """The datasets on the way from a table back to itself; empty if there is none."""
    seen: set[str] = set()

    def walk(table: str, way: list[str]) -> Iterator[list[str]]:
        resource = wanted.get(("CuratedTable", table))
        for dataset in logical_names(resource.curated_table.sql) if resource is not None else ():
            if dataset == f"{ZONE}{name}":
                yield [*way, dataset]
            elif dataset.startswith(ZONE) and dataset not in seen:
                seen.add(dataset)
                yield from walk(dataset.removeprefix(ZONE), [*way, dataset])

    return next(walk(name, [f"{ZONE}{name}"]), [])
