"""What is measured of a column, and what of it may be a cause."""

from enum import IntEnum


class Metric(IntEnum):
    """A metric of the Data Stats Service by the number of its contract, and those that are derived here."""

    COUNT = 1
    NULLS = 2
    MISSING_PERCENT = 3
    MIN = 4
    MAX = 5
    MEAN = 6
    MEDIAN = 7
    DISTINCT = 8
    # Derived: rows for each distinct entity; tells doubled rows from more of them.
    ROWS_PER_ENTITY = 100

    @property
    def label(self) -> str:
        """Name as evidence carries it, for example "METRIC_MEAN"."""
        return f"METRIC_{self.name}"


# Column of the row itself.
ROWS = ""
# All markets together.
WHOLE = ""
# Measured in the unit of the column's own values.
IN_UNITS_OF_VALUES = (Metric.MIN, Metric.MAX, Metric.MEAN, Metric.MEDIAN)
# Only these may be a cause: extremes of a heavy tail leave any forecast, and a number of nulls says nothing that their share does not.
CAUSES = (Metric.COUNT, Metric.MISSING_PERCENT, Metric.MEAN, Metric.MEDIAN, Metric.DISTINCT, Metric.ROWS_PER_ENTITY)
