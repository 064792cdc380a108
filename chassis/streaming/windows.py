"""Sliding windows of event time over cells: sums per bucket, merged from partials, and what came too late. Pure arrays of integers."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_RESOLUTION_SHIFT = 52

# Keys of shape (n, 4): city, cell, bucket start in seconds, measure; amounts of shape (n,).
Sums = tuple[NDArray[np.int64], NDArray[np.int64]]


def coarsen(cells: NDArray[np.int64], resolution: int) -> NDArray[np.int64]:
    """Parents of H3 cells at a resolution; 0 for what is no cell or is coarser.

    An index has 4 bits of resolution, then 3 bits a digit from resolution 1 to 15, 7 where unused (H3 documentation, "Index bit layout").
    """
    own = (cells >> _RESOLUTION_SHIFT) & 0xF
    unused = np.int64((1 << (3 * (15 - resolution))) - 1)
    parents = (cells & ~(np.int64(0xF) << _RESOLUTION_SHIFT)) | (np.int64(resolution) << _RESOLUTION_SHIFT) | unused
    return np.where((cells > 0) & (own >= resolution), parents, 0)


def group(keys: NDArray[np.int64], amounts: NDArray[np.int64]) -> Sums:
    """Sums the amounts of equal keys; keys come out sorted, so that the same events give the same bytes."""
    if not len(keys):
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    first = np.flatnonzero(np.r_[True, np.any(ordered[1:] != ordered[:-1], axis=1)])
    return ordered[first], np.add.reduceat(amounts[order], first)


@dataclass
class Windows:
    """Sums of one partition: `cells` has (city, cell) of each row, shape (n, 2), in order of appearance; `counts` (n, slots, measures).

    A bucket that starts at second s lives in slot (s / bucket) mod slots, as long as the newest bucket is fewer than `slots` ahead.
    """

    bucket_seconds: int
    slots: int
    measures: int
    newest: int = -1  # index (start / bucket) of the newest bucket
    cells: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self.counts = self.counts.reshape(len(self.cells), self.slots, self.measures)
        self._row_of = {tuple(cell): row for row, cell in enumerate(self.cells.tolist())}

    def add(self, keys: NDArray[np.int64], counts: NDArray[np.int64], oldest_allowed: int) -> NDArray[np.bool_]:
        """Merges counts by key (city, cell, bucket start, measure), shape (n, 4); returns which came too late, shape (n,).

        `oldest_allowed` is the first second whose bucket still counts.
        """
        if not len(keys):
            return np.zeros(0, bool)
        buckets = keys[:, 2] // self.bucket_seconds
        self._advance(int(buckets.max()))
        late = (keys[:, 2] + self.bucket_seconds <= oldest_allowed) | (buckets <= self.newest - self.slots)
        kept = ~late
        rows = self._rows(keys[kept, :2])
        np.add.at(self.counts, (rows, buckets[kept] % self.slots, keys[kept, 3]), counts[kept])
        return late

    def within(self, end_seconds: int, window_seconds: int) -> NDArray[np.int64]:
        """Sums over the buckets of (end - window, end]; shape (n, measures)."""
        last = min((end_seconds - 1) // self.bucket_seconds, self.newest) if end_seconds > 0 else -1
        first = max((end_seconds - window_seconds) // self.bucket_seconds, self.newest - self.slots + 1, 0)
        slots = np.arange(first, last + 1) % self.slots
        return np.asarray(self.counts[:, slots, :].sum(axis=1), np.int64)

    def drop(self, rows: NDArray[np.bool_]) -> None:
        """Forgets cells."""
        self.cells, self.counts = self.cells[~rows], self.counts[~rows]
        self._row_of = {tuple(cell): row for row, cell in enumerate(self.cells.tolist())}

    def _advance(self, newest: int) -> None:
        if newest <= self.newest:
            return
        stale = np.arange(max(self.newest + 1, newest - self.slots + 1), newest + 1) % self.slots
        self.counts[:, stale, :] = 0
        self.newest = newest

    def _rows(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = np.empty(len(cells), np.int64)
        fresh: list[tuple[int, int]] = []
        for place, (city, cell) in enumerate(cells.tolist()):
            row = self._row_of.setdefault((city, cell), len(self._row_of))
            if row >= len(self.cells) + len(fresh):
                fresh.append((city, cell))
            rows[place] = row
        if fresh:
            self.cells = np.concatenate([self.cells, np.array(fresh, np.int64)])
            self.counts = np.concatenate([self.counts, np.zeros((len(fresh), self.slots, self.measures), np.int64)])
        return rows
