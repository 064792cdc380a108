"""What is said of a partition."""

from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """Verdicts, by the numbers of the control plane's contract."""

    PASS = 1
    FAIL = 2
    UNKNOWN = 3
    NOT_JUDGED = 4


@dataclass(frozen=True)
class Partition:
    """A partition and its verdict."""

    dataset: str
    date: str
    table_version: int
    """-1 if it is missing."""
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    incident_ids: tuple[str, ...] = ()
    score: int = 0
    series: int = 0
    deviating: int = 0
