"""Buckets that came later than the allowed lateness, as records of the side output. Ids follow from the log position."""

from typing import Any

from google.protobuf.message import Message

from chassis.streaming.cellstate import Taken
from chassis.streaming.partials import derived_id, framed

Keyed = list[tuple[bytes | None, bytes]]


def late_records(message: type[Message], producer: tuple[str, str], partial: Any, taken: Taken, position: tuple[int, int]) -> Keyed:
    """Key and value of every late bucket, as the service's own message; `producer` is (name, version), `position` (incarnation, offset)."""
    records: Keyed = []
    incarnation, offset = position
    make: Any = message
    for (city, cell, bucket, measure), count in zip(taken.late_keys.tolist(), taken.late_counts.tolist(), strict=True):
        late = make(
            event_id=derived_id("late", incarnation, partial.partition, offset, city, cell, bucket, measure),
            region=partial.region,
            city_id=city,
            sequence=offset,
            producer=producer[0],
            producer_version=producer[1],
            cell=cell,
            measure=measure,
            count=count,
            bucket_seconds=partial.bucket_seconds,
            feature_set_version=partial.feature_set_version,
            partials_incarnation=incarnation,
            partials_partition=partial.partition,
            partials_offset=offset,
        )
        late.event_time.FromSeconds(bucket)
        late.watermark.FromMicroseconds(taken.watermark_us)
        records.append((str(city).encode(), framed(late)))
    return records
