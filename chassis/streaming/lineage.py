"""Lineage of streams, from the declarations that combiners and mergers execute."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from google.protobuf.message import Message

from chassis.lineage.definition import AGGREGATION, FILTER, GROUP_BY, IDENTITY, TRANSFORMATION, WINDOW, ColumnInput, JobDefinition, Output
from chassis.streaming.cells import CARRIED, LATE_CARRIED, CellOutput
from chassis.streaming.measures import CITY, TIME, CellSource
from chassis.streaming.partials import BUCKET, CELLS, CITIES, COUNTS, MEASURES
from chassis.wire import Schemas

Columns = dict[str, Sequence[ColumnInput]]


def combiner_job(form: CellOutput[Any], sources: Sequence[CellSource]) -> JobDefinition:
    """Events to partials: what each measure reads goes into the sums; city, cell and time decide where."""

    def all_of(transformation: str, *names: str) -> tuple[ColumnInput, ...]:
        return tuple(ColumnInput(f"kafka/{source.topic}", name, transformation) for source in sources for name in names)

    measured = [
        ColumnInput(f"kafka/{source.topic}", name, AGGREGATION) for source in sources for each in source.measures for name in each.columns
    ]
    columns: Columns = {
        CITIES: all_of(IDENTITY, CITY),
        CELLS: tuple(ColumnInput(f"kafka/{source.topic}", source.cell, TRANSFORMATION) for source in sources),
        BUCKET: all_of(TRANSFORMATION, TIME),
        COUNTS: tuple(dict.fromkeys(measured)),
        "sources": all_of(AGGREGATION, TIME),
    }
    return JobDefinition(
        f"{form.service}.combine", [f"kafka/{source.topic}" for source in sources], [_told(form.partials_topic, form.partial, columns)]
    )


def merger_job(form: CellOutput[Any]) -> JobDefinition:
    """Partials to outputs, late buckets and the online feature: values come from the sums within the window."""
    partials = f"kafka/{form.partials_topic}"

    def of(name: str, transformation: str) -> tuple[ColumnInput, ...]:
        return (ColumnInput(partials, name, transformation),)

    values: Columns = {name: of(COUNTS, AGGREGATION) for name in form.values}
    place: Columns = {"city_id": of(CITIES, IDENTITY), "cell": of(CELLS, IDENTITY)}
    tick = of("sources", AGGREGATION)
    rows = (*of(MEASURES, GROUP_BY), *of(BUCKET, WINDOW))
    kept = [field.name for field in fields(form.value)]
    online = {name: found for name, found in (place | values | {"tick_seconds": tick}).items() if name in (*kept, "city_id")}
    late = {"measure": of(MEASURES, IDENTITY), "count": of(COUNTS, AGGREGATION), TIME: of(BUCKET, IDENTITY), "watermark": tick}
    carried = {name: of(name, IDENTITY) for name in CARRIED}
    outputs = [
        Output(f"feature/{form.feature}", online, dict.fromkeys(online, "int64"), rows),
        _told(form.outputs_topic, form.output, place | values | {TIME: tick} | carried, rows),
        _told(form.late_topic, form.late, place | late | {name: of(name, IDENTITY) for name in LATE_CARRIED}, of(BUCKET, FILTER)),
    ]
    return JobDefinition(f"{form.service}.stream", [partials], outputs)


def _told(topic: str, message: type[Message], columns: Columns, rows: Sequence[ColumnInput] = ()) -> Output:
    """A topic with every field of its message; what is not among `columns` is made by the process itself."""
    types = {field.name: str(field.type) for field in Schemas().builtin(message.DESCRIPTOR.full_name).arrow}
    unknown = columns.keys() - types.keys()
    if unknown:
        raise LookupError(f"{message.DESCRIPTOR.full_name} has no {sorted(unknown)}")
    return Output(f"kafka/{topic}", {name: columns.get(name, ()) for name in types}, types, rows)
