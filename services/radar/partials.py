"""Partials of radar: payment events as rows, in the order of (event time, event id)."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.radar.v1alpha1.radar_partial_pb2 import RadarPartial
from chassis.streaming.combiner import SourceState
from chassis.streaming.partials import PartialForm, PartialWriter, framed
from services.radar.features import FEATURES

PARTIALS = "radar_partials_v1"

# Column of the event to column of the partial.
COLUMNS = {
    "event_id": "event_ids",
    "event_time": "event_time_us",
    "city_id": "city_ids",
    "payment_id": "payment_ids",
    "account_id": "account_ids",
    "instrument_fingerprint": "instrument_fingerprints",
    "device_fingerprint": "device_fingerprints",
    "amount_amount_minor": "amounts_minor",
    "stage": "stages",
    "trip_requested_at": "trip_requested_us",
}


class RiskPartials:
    """The `Features` of the radar combiner: rows per partition, at stages that a feature counts."""

    def __init__(self, policy: Callable[[], specs_pb2.RiskPolicySpec], region: str) -> None:
        self._writer = PartialWriter(PartialForm(RadarPartial, "radar-combine", "1", FEATURES.version, region))
        self._policy = policy
        self._pending: dict[int, list[pa.RecordBatch]] = defaultdict(list)

    def add(self, partition: int, source: SourceState, columns: pa.RecordBatch) -> int:
        """Adds events; returns how many of them mean nothing to any feature."""
        kept = columns.filter(pc.is_in(columns["stage"], pa.array(sorted(FEATURES.stages), columns["stage"].type)))
        self._pending[partition].append(kept.select(list(COLUMNS)))
        return int(columns.num_rows - kept.num_rows)

    def reset(self, partition: int) -> None:
        """Drops what is under way; the next partial carries the whole policy again."""
        self._pending.pop(partition, None)
        self._writer.reset(partition)

    def take(self, partition: int, sources: Sequence[SourceState], now: float) -> bytes:
        """The framed partial."""
        partial = self._writer.begin(partition, sources, self._policy(), now)
        pending = self._pending.pop(partition, None)
        if pending:
            rows = pa.Table.from_batches(pending).sort_by([("event_time", "ascending"), ("event_id", "ascending")])
            for name, target in COLUMNS.items():
                getattr(partial, target).extend(_values(rows[name]))
        return framed(partial)


def _values(column: pa.ChunkedArray) -> list[object]:
    """Values as the contract has them: times in microseconds, 0 or empty for what is absent."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    zero = {pa.string(): "", pa.binary(): b""}.get(column.type, 0)
    values: list[object] = pc.fill_null(column, pa.scalar(zero, column.type)).to_pylist()
    return values
