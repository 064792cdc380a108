"""How the state of a dataset partition follows from a verdict. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class PartitionState(StrEnum):
    """What consumers go by."""

    PENDING = "PENDING"
    READY = "READY"
    BLOCKED = "BLOCKED"
    UNKNOWN = "UNKNOWN"


class Verdict(StrEnum):
    """What a quality monitor found."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"
    NOT_JUDGED = "NOT_JUDGED"


STATE_OF: Mapping[Verdict, PartitionState] = {
    Verdict.PASS: PartitionState.READY,
    Verdict.FAIL: PartitionState.BLOCKED,
    Verdict.UNKNOWN: PartitionState.UNKNOWN,
    Verdict.NOT_JUDGED: PartitionState.READY,
}
# A state that needs a reason has one, also where the monitor gave none.
_DEFAULT_REASON: Mapping[Verdict, str] = {
    Verdict.FAIL: "quality found it wrong and gave no reason",
    Verdict.UNKNOWN: "quality could not tell and gave no reason",
    Verdict.NOT_JUDGED: "not judged: older than what quality judges",
}


@dataclass(frozen=True, order=True)
class PartitionKey:
    """Which partition of which dataset, within a cell."""

    dataset: str
    day: date


@dataclass(frozen=True)
class Judged:
    """A verdict on a partition at a table version (-1: the partition is missing)."""

    key: PartitionKey
    verdict: Verdict
    table_version: int
    reasons: tuple[str, ...] = ()
    incident_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Partition:
    """A partition as it is marked."""

    key: PartitionKey
    state: PartitionState
    table_version: int
    reasons: tuple[str, ...] = ()
    incident_ids: tuple[str, ...] = ()
    state_changed_at: datetime | None = None


def marked(known: Partition | None, judged: Judged, now: datetime) -> Partition | None:
    """The partition after a verdict; None where nothing changes. A verdict on an older table version than the known one is ignored."""
    if known is not None and judged.table_version < known.table_version:
        return None
    state, reasons = STATE_OF[judged.verdict], _reasons(judged)
    changed_at = now if known is None or known.state is not state else known.state_changed_at
    after = Partition(judged.key, state, judged.table_version, reasons, judged.incident_ids, changed_at)
    return None if after == known else after


def _reasons(judged: Judged) -> tuple[str, ...]:
    if not judged.reasons:
        default = _DEFAULT_REASON.get(judged.verdict)
        return (default,) if default else ()
    if judged.verdict is Verdict.NOT_JUDGED:
        return tuple(f"not judged: {reason}" for reason in judged.reasons)
    return judged.reasons


def newest(verdicts: Sequence[Judged]) -> list[Judged]:
    """One verdict per partition, in the order of their keys: that on the newest table version, of equals the last."""
    found: dict[PartitionKey, Judged] = {}
    for judged in verdicts:
        held = found.get(judged.key)
        if held is None or judged.table_version >= held.table_version:
            found[judged.key] = judged
    return [found[key] for key in sorted(found)]
