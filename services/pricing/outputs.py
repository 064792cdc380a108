"""Outputs of the merger as records: multipliers for the archive, late buckets for the side output. Ids follow from the log position."""

from arterial.api.pricing.v1.late_bucket_pb2 import LateBucket
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from arterial.api.pricing.v1.surge_output_pb2 import SurgeOutput
from chassis.wire import BUILTIN_IDS, frame
from services.pricing.partials import derived_id
from services.pricing.state import Emission, SurgeState

PRODUCER, VERSION = "pricing-stream", "1"
SURGE_SCHEMA = BUILTIN_IDS["arterial.api.pricing.v1.SurgeOutput"]
LATE_SCHEMA = BUILTIN_IDS["arterial.api.pricing.v1.LateBucket"]
Keyed = list[tuple[bytes | None, bytes]]


def surge_records(partial: PricingPartial, emission: Emission, state: SurgeState, incarnation: int, offset: int) -> Keyed:
    """Key and value of every multiplier that changed."""
    records: Keyed = []
    columns = (emission.multiplier_milli, emission.raw_milli, emission.demand_milli, emission.supply_milli)
    for (city, cell), *values in zip(emission.cells.tolist(), *(column.tolist() for column in columns), strict=True):
        output = SurgeOutput(
            event_id=derived_id("surge", incarnation, partial.partition, offset, emission.tick_seconds, city, cell),
            region=partial.region,
            city_id=city,
            sequence=offset,
            producer=PRODUCER,
            producer_version=VERSION,
            cell=cell,
            multiplier_milli=values[0],
            raw_multiplier_milli=min(values[1], (1 << 31) - 1),
            demand_milli=values[2],
            supply_milli=values[3],
            policy_hash=state.policy_hash,
            feature_set_version=partial.feature_set_version,
            partials_incarnation=incarnation,
            partials_partition=partial.partition,
            partials_offset=offset,
            combined_at=partial.combined_at,
        )
        output.event_time.FromSeconds(emission.tick_seconds)
        records.append((str(city).encode(), frame(SURGE_SCHEMA, output.SerializeToString())))
    return records


def late_records(partial: PricingPartial, emission: Emission, incarnation: int, offset: int) -> Keyed:
    """Key and value of every bucket that came too late."""
    records: Keyed = []
    for (city, cell, bucket, measure), count in zip(emission.late_keys.tolist(), emission.late_counts.tolist(), strict=True):
        late = LateBucket(
            event_id=derived_id("late", incarnation, partial.partition, offset, city, cell, bucket, measure),
            region=partial.region,
            city_id=city,
            sequence=offset,
            producer=PRODUCER,
            producer_version=VERSION,
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
        late.watermark.FromMicroseconds(emission.watermark_us)
        records.append((str(city).encode(), frame(LATE_SCHEMA, late.SerializeToString())))
    return records
