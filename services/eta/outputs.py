"""Live speeds as records for the archive. Ids follow from the log position."""

from arterial.api.eta.v1alpha1.eta_partial_pb2 import EtaPartial
from arterial.api.eta.v1alpha1.speed_output_pb2 import SpeedOutput
from chassis.streaming.late import Keyed
from chassis.streaming.partials import derived_id, framed
from services.eta.state import Emission

PRODUCER, VERSION = "eta-stream", "1"


def speed_records(partial: EtaPartial, emission: Emission, incarnation: int, offset: int) -> Keyed:
    """Key and value of every speed that changed."""
    records: Keyed = []
    for (city, cell), (ratio, speed, observations) in zip(emission.cells.tolist(), emission.values.tolist(), strict=True):
        output = SpeedOutput(
            event_id=derived_id("speed", incarnation, partial.partition, offset, emission.tick_seconds, city, cell),
            region=partial.region,
            city_id=city,
            sequence=offset,
            producer=PRODUCER,
            producer_version=VERSION,
            cell=cell,
            ratio_milli=ratio,
            speed_mmps=speed,
            observations=observations,
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
