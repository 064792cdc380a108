"""Faults that nobody planned for: a day of one market arrives wrong, although every record keeps contract and rules."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulator.columns import Events, event_ids
from simulator.history import PAYMENTS, TRIPS, of_market

KINDS = ("nulls", "shifted_mean", "distinct_collapse", "halved_volume", "stale", "doubled_rows")
# What each kind may hit, by topic: a field of the event; rows for those that concern whole rows.
COORDINATES = {TRIPS: ("pickup_position", "dropoff_position")}
NUMBERS = {TRIPS: ("distance_m", "duration_seconds", "fare", "promised_eta_seconds"), PAYMENTS: ("amount",)}
NAMES = {TRIPS: ("driver_id", "rider_id", "route_id"), PAYMENTS: ("instrument_fingerprint", "device_fingerprint")}
ROWS = {TRIPS: ("",), PAYMENTS: ("",)}
_TARGETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {"nulls": COORDINATES, "shifted_mean": NUMBERS, "distinct_collapse": NAMES}
NULL_SHARE, SHIFT_FACTOR, DISTINCT_LEFT = 0.3, 1.5, 25
# Columns of tables that a field becomes.
_COLUMNS = {"position": ("latitude", "longitude"), "fare": ("amount_minor",), "amount": ("amount_minor",)}


@dataclass(frozen=True)
class Fault:
    """One fault: what, in which topic, in which field ("" for the rows) and market."""

    kind: str
    topic: str
    field: str
    city_id: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the topic's tables that show it; none if the rows do."""
        if not self.field:
            return ()
        parts = next((parts for name, parts in _COLUMNS.items() if self.field.endswith(name)), None)
        return (self.field,) if parts is None else tuple(f"{self.field}_{part}" for part in parts)

    def __str__(self) -> str:
        return f"{self.kind} in {self.field or 'rows'} of {self.topic}, market {self.city_id}"


def choose(seed: int, cities: tuple[int, ...] = (1, 2, 3)) -> Fault:
    """The fault of a seed; seeds in a row go through the kinds, field and market are drawn."""
    random = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    targets = [(topic, field) for topic, fields in _TARGETS.get(kind, ROWS).items() for field in fields]
    topic, field = targets[int(random.integers(len(targets)))]
    return Fault(kind, topic, field, int(random.choice(cities)))


def inject(events: Events, fault: Fault, seed: int) -> Events:
    """The events of the fault's topic as they arrive with it."""
    random = np.random.default_rng(seed)
    hit = of_market(events, fault.city_id)
    if fault.kind == "halved_volume":
        return _taken(events, ~hit | (random.random(events.count) < 0.5))
    if fault.kind == "stale":
        return _taken(events, ~hit)
    if fault.kind == "doubled_rows":
        again = _taken(events, hit)
        micros = again.columns["event_time"].cast(pa.int64()).to_numpy()
        return Events.join([events, Events(again.columns | {"event_id": event_ids(micros, random)}, again.count)])
    columns = dict(events.columns)
    change = {"nulls": _nulled, "shifted_mean": _shifted, "distinct_collapse": _collapsed}[fault.kind]
    columns[fault.field] = change(columns[fault.field], hit, random)
    return Events(columns, events.count)


def _taken(events: Events, mask: NDArray[np.bool_]) -> Events:
    kept = pa.table(events.columns).filter(pa.array(mask)).combine_chunks()
    return Events({name: kept[name].combine_chunks() for name in kept.column_names}, kept.num_rows)


def _nulled(column: pa.Array, hit: NDArray[np.bool_], random: np.random.Generator) -> pa.Array:
    gone = hit & (random.random(len(column)) < NULL_SHARE)
    return pc.if_else(pa.array(gone), pa.scalar(None, column.type), column)


def _shifted(column: pa.Array, hit: NDArray[np.bool_], _random: np.random.Generator) -> pa.Array:
    if pa.types.is_struct(column.type):
        minor, currency = column.flatten()
        return pa.StructArray.from_arrays([_shifted(minor, hit, _random), currency], fields=list(column.type))
    numbers = column.to_numpy()
    return pa.array(np.where(hit, (numbers * SHIFT_FACTOR).astype(numbers.dtype), numbers), column.type)


def _collapsed(column: pa.Array, hit: NDArray[np.bool_], random: np.random.Generator) -> pa.Array:
    """A few of the market's own names stand for all of them."""
    few = pc.unique(column.filter(pa.array(hit)))[:DISTINCT_LEFT]
    if not len(few):
        return column
    return pc.if_else(pa.array(hit), few.take(pa.array(random.integers(0, len(few), len(column)))), column)
