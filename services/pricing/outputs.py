"""Multipliers as records for the archive. Ids follow from the log position."""

from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from arterial.api.pricing.v1.surge_output_pb2 import SurgeOutput
from chassis.streaming.late import Keyed
from chassis.streaming.partials import derived_id, framed
from services.pricing.state import Emission

PRODUCER, VERSION = "pricing-stream", "1"


def surge_records(partial: PricingPartial, emission: Emission, incarnation: int, offset: int) -> Keyed:
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
            policy_hash=partial.policy_hash,
            feature_set_version=partial.feature_set_version,
            partials_incarnation=incarnation,
            partials_partition=partial.partition,
            partials_offset=offset,
            combined_at=partial.combined_at,
        )
        output.event_time.FromSeconds(emission.tick_seconds)
        records.append((str(city).encode(), framed(output)))
    return records
