"""Feature declarations of streams: what is summed per cell and bucket, from which columns of which topic.

A measure's code is given its declared columns and nothing else, so what is declared is what is read; lineage follows from the declarations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chassis.streaming.windows import Sums, coarsen

# What every event has, by meaning: who it is of, and when it happened.
CITY, TIME = "city_id", "event_time"


@dataclass(frozen=True)
class Measure:
    """A sum of integers. `amounts` takes the policy and the columns, (n,) each; amounts (n,) are negative where an event has no part."""

    index: int
    columns: tuple[str, ...]
    amounts: Callable[..., NDArray[np.int64]]


@dataclass(frozen=True)
class CellSource:
    """What the events of a topic are counted for, and the column of the H3 cell that they are counted in."""

    topic: str
    cell: str
    measures: tuple[Measure, ...]

    def sums(self, columns: pa.RecordBatch, policy: Any) -> tuple[Sums, int]:
        """Keys (city, cell, bucket start, measure) and amounts of a batch of events, and how many of the events count for nothing."""
        cells = coarsen(_integers(columns[self.cell]), policy.cell_resolution)
        seconds = _integers(columns[TIME].cast(pa.int64())) // 1_000_000
        place = np.column_stack([_integers(columns[CITY]), cells, seconds - seconds % policy.bucket_seconds])
        keys, amounts, counted = [], [], np.zeros(len(cells), bool)
        for measure in self.measures:
            found = measure.amounts(policy, *(columns[name].to_numpy(zero_copy_only=False) for name in measure.columns))
            part = (found >= 0) & (cells > 0)
            keys.append(np.column_stack([place[part], np.full(int(part.sum()), measure.index, np.int64)]))
            amounts.append(found[part])
            counted |= part
        return (np.concatenate(keys), np.concatenate(amounts)), int((~counted).sum())


def source_of(sources: Sequence[CellSource], topic: str) -> CellSource:
    """The declaration of a topic. Raises LookupError."""
    for source in sources:
        if source.topic == topic:
            return source
    raise LookupError(f"topic {topic} is not declared among {[source.topic for source in sources]}")


def _integers(column: pa.Array) -> NDArray[np.int64]:
    """A column of integers; absent ones count as 0."""
    return np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False), np.int64)
