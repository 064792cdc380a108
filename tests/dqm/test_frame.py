"""What of a dataset's statistics is judged."""

from services.dqm.frame import Points, frame, prepared
from services.dqm.metrics import Metric

DATES = ["2026-03-01", "2026-03-02"]


def test_how_rows_arrived_is_not_judged() -> None:
    """A day that comes as a file of its own has other offsets and sources than a history in one file; its content is what counts."""
    columns = ["_offset", "_topic", "distance_m", ""]
    series = [Points("1", column, Metric.COUNT, DATES, [100.0, 100.0]) for column in columns]
    told = prepared(frame("lake/curated/trips", dict.fromkeys(DATES, 3), series), "")
    assert told.columns.tolist() == ["distance_m", ""]
    assert told.values.shape == (2, 2)
