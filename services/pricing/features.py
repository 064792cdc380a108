"""From events to counts: the feature set of surge. Pure arithmetic on columns."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.streaming.windows import Sums, coarsen

FEATURE_SET_VERSION = 1
# Measures, by index. Online and offline events of drivers mean nothing here: availability is told by heartbeats.
SESSION, QUOTE, REQUEST, AVAILABLE, COMPLETED, CANCELLED = range(6)
MEASURES = 6
_OF_KIND = {
    MarketplaceEvent.KIND_SESSION_OPENED: SESSION,
    MarketplaceEvent.KIND_QUOTE_SHOWN: QUOTE,
    MarketplaceEvent.KIND_REQUEST: REQUEST,
    MarketplaceEvent.KIND_DRIVER_AVAILABLE: AVAILABLE,
}
_OF_STATUS = {TripEvent.STATUS_COMPLETED: COMPLETED, TripEvent.STATUS_CANCELLED: CANCELLED}


def measures_of(columns: pa.RecordBatch) -> NDArray[np.int64]:
    """The measure that each event counts for, -1 for none; shape (n,)."""
    name, table = ("kind", _OF_KIND) if "kind" in columns.schema.names else ("status", _OF_STATUS)
    values = columns[name].to_numpy(zero_copy_only=False)
    lookup = np.full(max(table) + 1, -1, np.int64)
    for value, measure in table.items():
        lookup[value] = measure
    return np.where((values >= 0) & (values <= max(table)), lookup[np.clip(values, 0, max(table))], -1)


def sums_of(columns: pa.RecordBatch, policy: specs_pb2.PricingPolicySpec) -> tuple[Sums, int]:
    """One key (city, cell, bucket start in seconds, measure) and a 1 per event that counts; and how many count for nothing."""
    cell_name = "cell" if "cell" in columns.schema.names else "pickup_cell"
    cells = coarsen(columns[cell_name].to_numpy(zero_copy_only=False), policy.cell_resolution)
    seconds = columns["event_time"].cast(pa.int64()).to_numpy(zero_copy_only=False) // 1_000_000
    measures = measures_of(columns)
    keys = np.column_stack([columns["city_id"].to_numpy(zero_copy_only=False), cells, seconds - seconds % policy.bucket_seconds, measures])
    keys = keys[(measures >= 0) & (cells > 0)]
    return (keys, np.ones(len(keys), np.int64)), int(columns.num_rows - len(keys))
