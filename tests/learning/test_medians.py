"""Medians of groups, and what stands in for groups that were not seen."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chassis.learning.medians import Medians


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-20, 20)), min_size=1, max_size=50))
def test_groups_have_numpys_medians(rows: list[tuple[int, int]]) -> None:
    """Of even and odd numbers of values; a group that was not seen has the median of all."""
    key, values = np.array([key for key, _ in rows]), np.array([value for _, value in rows], np.float64)
    found = Medians([key], values).predict([np.arange(6)])
    for group in range(6):
        same = values[key == group]
        assert found[group] == np.median(same if len(same) else values)


def test_what_was_not_seen_falls_back_to_the_coarser_group() -> None:
    """A pair seen once counts as not seen: its origin answers, and for an origin that is new, all do."""
    pair, origin = np.array([11, 11, 12, 21]), np.array([1, 1, 1, 2])
    medians = Medians([pair, origin], np.array([10.0, 20.0, 90.0, 40.0]), least=2)
    assert medians.predict([np.array([11, 12, 13, 31]), np.array([1, 1, 1, 3])]).tolist() == [15.0, 20.0, 20.0, 30.0]
