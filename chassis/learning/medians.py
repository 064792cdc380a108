"""The median of what was seen of a pair, as a baseline: what a model of travel times has to be better than."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Medians:
    """Medians by groups; a group that was not seen falls back to the next coarser grouping, and last to the median of all."""

    def __init__(self, keys: Sequence[Ints], values: Floats, least: int = 1) -> None:
        """`keys`: a grouping each, finest first, shape (n,); `values` (n,); groups of fewer than `least` count as not seen."""
        self._tables = [_table(key, values, least) for key in keys]
        self._all = float(np.median(values))

    def predict(self, keys: Sequence[Ints]) -> Floats:
        """Medians for the groups of each grouping, in their order; shape (m,) each."""
        found = np.full(len(keys[0]), self._all)
        for (groups, medians), key in reversed(list(zip(self._tables, keys, strict=True))):
            place = np.minimum(np.searchsorted(groups, key), len(groups) - 1)
            seen = groups[place] == key if len(groups) else np.zeros(len(key), bool)
            found = np.where(seen, medians[place] if len(groups) else 0.0, found)
        return found


def _table(key: Ints, values: Floats, least: int) -> tuple[Ints, Floats]:
    """Groups, ascending, and their medians."""
    order = np.lexsort((values, key))
    ordered = values[order]
    groups, starts, counts = np.unique(key[order], return_index=True, return_counts=True)
    medians = (ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]) / 2
    enough = counts >= least
    return groups[enough], medians[enough]
