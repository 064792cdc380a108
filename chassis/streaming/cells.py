"""What a service serves and tells of its cells, declared once: topics, messages, and the value that is kept online."""

from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from chassis.streaming.cellstate import Taken
from chassis.streaming.partials import derived_id, framed

V = TypeVar("V")
Keyed = list[tuple[bytes | None, bytes]]
# What outputs repeat of the partial that caused them.
CARRIED = ("region", "policy_hash", "feature_set_version", "combined_at")
LATE_CARRIED = ("region", "bucket_seconds", "feature_set_version")


@dataclass(frozen=True)
class CellEmission:
    """What a partial led to: changed cells (n, 2: city, cell), their values (n, k), and cells (m, 2) of which nothing more is told."""

    tick_seconds: int
    cells: NDArray[np.int64]
    values: NDArray[np.int64]
    gone: NDArray[np.int64]
    taken: Taken


@dataclass(frozen=True)
class CellOutput(Generic[V]):
    """A service's output per cell.

    `value` is the frozen dataclass that is kept online: `cell`, then the values, then `tick_seconds`, all integers. The values are named as
    fields of `output` are. `kind` stands in derived ids and in the online store's keys, `feature` is the dataset's name.
    """

    service: str
    feature_set_version: int
    kind: str
    feature: str
    partial: type[Message]
    output: type[Message]
    late: type[Message]
    value: type[V]

    @property
    def partials_topic(self) -> str:
        """Where its partials are."""
        return f"{self.service}_partials_v1"

    @property
    def outputs_topic(self) -> str:
        """Where outputs go."""
        return f"{self.service}_outputs_v1"

    @property
    def late_topic(self) -> str:
        """Where buckets go that came too late."""
        return f"{self.service}_late_v1"

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values."""
        value: Any = self.value
        return tuple(field.name for field in fields(value))[1:-1]

    def records(self, partial: Any, emission: CellEmission, position: tuple[int, int]) -> Keyed:
        """Key and value of every output; `position` is (incarnation, offset) of the partial, from which ids follow."""
        make: Any = self.output
        records: Keyed = []
        for (city, cell), row in zip(emission.cells.tolist(), emission.values.tolist(), strict=True):
            output = make(
                event_id=derived_id(self.kind, position[0], partial.partition, position[1], emission.tick_seconds, city, cell),
                city_id=city,
                cell=cell,
                **dict(zip(self.values, row, strict=True)),
                **{name: getattr(partial, name) for name in CARRIED},
                **self._origin(partial, position),
            )
            output.event_time.FromSeconds(emission.tick_seconds)
            records.append((str(city).encode(), framed(output)))
        return records

    def late_records(self, partial: Any, taken: Taken, position: tuple[int, int]) -> Keyed:
        """Key and value of every bucket that came too late."""
        make: Any = self.late
        records: Keyed = []
        for (city, cell, bucket, measure), count in zip(taken.late_keys.tolist(), taken.late_counts.tolist(), strict=True):
            late = make(
                event_id=derived_id("late", position[0], partial.partition, position[1], city, cell, bucket, measure),
                city_id=city,
                cell=cell,
                measure=measure,
                count=count,
                **{name: getattr(partial, name) for name in LATE_CARRIED},
                **self._origin(partial, position),
            )
            late.event_time.FromSeconds(bucket)
            late.watermark.FromMicroseconds(taken.watermark_us)
            records.append((str(city).encode(), framed(late)))
        return records

    def _origin(self, partial: Any, position: tuple[int, int]) -> dict[str, Any]:
        return {
            "sequence": position[1],
            "producer": f"{self.service}-stream",
            "producer_version": "1",
            "partials_incarnation": position[0],
            "partials_partition": partial.partition,
            "partials_offset": position[1],
        }
