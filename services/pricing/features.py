"""From events to counts: the feature set of surge. Pure arithmetic on columns."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from arterial.api.events.v1.trip_event_pb2 import TripEvent

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
_RESOLUTION_SHIFT = 52

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]  # keys of shape (n, 4): city, cell, bucket start, measure; counts of shape (n,)


def coarsen(cells: NDArray[np.int64], resolution: int) -> NDArray[np.int64]:
    """Parents of H3 cells at a resolution; 0 for what is no cell or is coarser.

    An index has 4 bits of resolution, then 3 bits a digit from resolution 1 to 15, 7 where unused (H3 documentation, "Index bit layout").
    """
    own = (cells >> _RESOLUTION_SHIFT) & 0xF
    unused = np.int64((1 << (3 * (15 - resolution))) - 1)
    parents = (cells & ~(np.int64(0xF) << _RESOLUTION_SHIFT)) | (np.int64(resolution) << _RESOLUTION_SHIFT) | unused
    return np.where((cells > 0) & (own >= resolution), parents, 0)


def measures_of(columns: pa.RecordBatch) -> NDArray[np.int64]:
    """The measure that each event counts for, -1 for none; shape (n,)."""
    name, table = ("kind", _OF_KIND) if "kind" in columns.schema.names else ("status", _OF_STATUS)
    values = columns[name].to_numpy(zero_copy_only=False)
    lookup = np.full(max(table) + 1, -1, np.int64)
    for value, measure in table.items():
        lookup[value] = measure
    return np.where((values >= 0) & (values <= max(table)), lookup[np.clip(values, 0, max(table))], -1)


def keys_of(columns: pa.RecordBatch, policy: specs_pb2.PricingPolicySpec) -> NDArray[np.int64]:
    """One key (city, cell, bucket start in seconds, measure) per event that counts; shape (n, 4)."""
    cell_name = "cell" if "cell" in columns.schema.names else "pickup_cell"
    cells = coarsen(columns[cell_name].to_numpy(zero_copy_only=False), policy.cell_resolution)
    seconds = columns["event_time"].cast(pa.int64()).to_numpy(zero_copy_only=False) // 1_000_000
    measures = measures_of(columns)
    keys = np.column_stack([columns["city_id"].to_numpy(zero_copy_only=False), cells, seconds - seconds % policy.bucket_seconds, measures])
    return keys[(measures >= 0) & (cells > 0)]


def group(keys: NDArray[np.int64], counts: NDArray[np.int64] | None = None) -> Counts:
    """Sums the counts (1 each by default) of equal keys; keys come out sorted, so that the same events give the same bytes."""
    if not len(keys):
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    weights = np.ones(len(keys), np.int64) if counts is None else counts
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    first = np.flatnonzero(np.r_[True, np.any(ordered[1:] != ordered[:-1], axis=1)])
    return ordered[first], np.add.reduceat(weights[order], first)
