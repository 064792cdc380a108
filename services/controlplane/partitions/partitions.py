"""How the state of a dataset partition follows from what is known of it. Pure.

Monitors report verdicts on its freshness, completeness and quality; runs that make it are known; an operator may override. Of these: an
override wins; then a failed verdict blocks, on it or on one that it was made from; what passed in all that was reported, quality included
(of what is not monitored, completeness, which is told once its day has ended), is ready; what a run is making or failed to make is
running or failed; what could not be judged is unknown; all else is pending.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

from services.controlplane.jobs.runs import Input, RunState


class PartitionState(StrEnum):
    """What consumers go by."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    READY = "READY"
    FAILED = "FAILED"
    BLOCKED = "BLOCKED"
    UNKNOWN = "UNKNOWN"


class Verdict(StrEnum):
    """What a monitor found."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"
    NOT_JUDGED = "NOT_JUDGED"


class Aspect(StrEnum):
    """What a verdict speaks of."""

    FRESHNESS = "FRESHNESS"
    COMPLETENESS = "COMPLETENESS"
    QUALITY = "QUALITY"


# Nobody may use it, nor what was made from it.
WITHHELD = frozenset({PartitionState.BLOCKED, PartitionState.UNKNOWN})
# Partitions that one was made from and that are told of, each with its reasons.
MAX_TOLD = 5

# A verdict that needs a reason has one, also where the monitor gave none.
_DEFAULT_REASON: Mapping[Verdict, str] = {
    Verdict.FAIL: "found it wrong and gave no reason",
    Verdict.UNKNOWN: "could not tell and gave no reason",
    Verdict.NOT_JUDGED: "older than what is judged",
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
    aspect: Aspect = Aspect.QUALITY
    reported_at: datetime | None = None
    value: float | None = None
    """What was measured: seconds of freshness, percent of completeness."""


@dataclass(frozen=True)
class Making:
    """The newest run that makes a partition; `inputs` are what the newest that succeeded read."""

    number: int
    state: RunState
    reasons: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()


@dataclass(frozen=True)
class Override:
    """A decision of an operator, which holds until it is withdrawn."""

    state: PartitionState
    reason: str
    actor: str
    made_at: datetime


@dataclass(frozen=True)
class Evidence:
    """What is known of a partition. `needs_quality` unless its dataset is declared as not monitored: that needs completeness.

    `made_from` has those, near or far, that it was made from and that are withheld for their own sake, as they are `alone`.
    """

    verdicts: tuple[Judged, ...] = ()
    making: Making | None = None
    override: Override | None = None
    needs_quality: bool = True
    made_from: tuple["Partition", ...] = ()


@dataclass(frozen=True)
class Partition:
    """A partition as it is marked."""

    key: PartitionKey
    state: PartitionState
    table_version: int
    reasons: tuple[str, ...] = ()
    incident_ids: tuple[str, ...] = ()
    state_changed_at: datetime | None = None
    # What would hold without the override.
    judged_state: PartitionState = PartitionState.PENDING
    override: Override | None = None
    # Number of the newest run that makes it; 0 for none.
    run: int = 0
    revision: int = 0
    # Of one that is withheld: which are so for their own sake, itself or what it was made from.
    causes: tuple[PartitionKey, ...] = ()


def pending(key: PartitionKey) -> Partition:
    """A partition that nobody has spoken of."""
    return Partition(key, PartitionState.PENDING, -1)


def newest(verdicts: Sequence[Judged], known: Sequence[Judged] = ()) -> list[Judged]:
    """One verdict per partition and aspect, in their order: that on the newest table version, of equals the last reported."""
    found: dict[tuple[PartitionKey, Aspect], Judged] = {(judged.key, judged.aspect): judged for judged in known}
    for judged in verdicts:
        held = found.get((judged.key, judged.aspect))
        if held is None or judged.table_version >= held.table_version:
            found[judged.key, judged.aspect] = judged
    return [found[key] for key in sorted(found)]


def marked(before: Partition | None, key: PartitionKey, evidence: Evidence, now: datetime) -> Partition | None:
    """The partition as it follows from the evidence; None where that changes nothing."""
    state, judged_state, reasons = _stated(evidence)
    quality = [verdict for verdict in evidence.verdicts if verdict.aspect is Aspect.QUALITY]
    changed_at = now if before is None or before.state is not state else before.state_changed_at
    after = Partition(
        key,
        state,
        max((verdict.table_version for verdict in quality or evidence.verdicts), default=-1),
        reasons,
        tuple(dict.fromkeys(incident for verdict in evidence.verdicts for incident in verdict.incident_ids)),
        changed_at,
        judged_state,
        evidence.override,
        evidence.making.number if evidence.making else 0,
        before.revision if before else 0,
        _causes(key, state, evidence),
    )
    return None if after == before or _goes_on(after, before, evidence.verdicts) else after


def alone(key: PartitionKey, evidence: Evidence) -> Partition:
    """The partition as it is for its own sake, whatever it was made from."""
    state, judged_state, reasons = _stated(replace(evidence, made_from=()))
    return replace(pending(key), state=state, judged_state=judged_state, reasons=reasons)


def _stated(evidence: Evidence) -> tuple[PartitionState, PartitionState, tuple[str, ...]]:
    """State, state without the override, and reasons."""
    state, reasons = judged(evidence)
    override = evidence.override
    if override is None:
        return state, state, reasons
    told = f"overridden by {override.actor or 'somebody'}: {override.reason}"
    return override.state, state, (told, *(f"without it {state}: {why}" for why in reasons))


def _goes_on(after: Partition, before: Partition | None, verdicts: Sequence[Judged]) -> bool:
    """True if only the version is another, and quality did not say so: other aspects are told again and again while the table goes on."""
    spoken = {verdict.aspect for verdict in verdicts}
    return before is not None and Aspect.QUALITY not in spoken and replace(after, table_version=before.table_version) == before


def judged(evidence: Evidence) -> tuple[PartitionState, tuple[str, ...]]:
    """State and reasons without regard to an override."""
    found = {verdict: [given for given in evidence.verdicts if given.verdict is verdict] for verdict in Verdict}
    bad, unknown = _reasons(found[Verdict.FAIL]), _reasons(found[Verdict.UNKNOWN])
    bad += _descent(evidence, PartitionState.BLOCKED)
    unknown += _descent(evidence, PartitionState.UNKNOWN)
    if bad:
        return PartitionState.BLOCKED, (*bad, *unknown)
    needed = Aspect.QUALITY if evidence.needs_quality else Aspect.COMPLETENESS
    spoken = {given.aspect for given in evidence.verdicts}
    # A monitor that judges quality although it is not declared speaks of a day that has ended, too.
    enough = bool(spoken & {needed, Aspect.QUALITY})
    if enough and not unknown:
        return PartitionState.READY, _reasons(found[Verdict.NOT_JUDGED])
    made = _of_making(evidence.making)
    if made is not None and (made[0] is not PartitionState.PENDING or not unknown):
        return made[0], (*made[1], *unknown)
    if unknown:
        return PartitionState.UNKNOWN, unknown
    return PartitionState.PENDING, (f"{needed.lower()} is not told yet",) if evidence.verdicts else ()


def _descent(evidence: Evidence, state: PartitionState) -> tuple[str, ...]:
    """What is wrong with the partitions in a state that this one was made from."""
    found = [given for given in evidence.made_from if given.state is state]
    told = tuple(
        f"made from {given.key.dataset} {given.key.day}, which is {state}: {'; '.join(given.reasons)}" for given in found[:MAX_TOLD]
    )
    return (*told, f"and from {len(found) - MAX_TOLD} more that are {state}") if len(found) > MAX_TOLD else told


def _causes(key: PartitionKey, state: PartitionState, evidence: Evidence) -> tuple[PartitionKey, ...]:
    if state not in WITHHELD:
        return ()
    own = evidence.override is not None or alone(key, evidence).state in WITHHELD
    return (*([key] if own else []), *(given.key for given in evidence.made_from))


def _of_making(making: Making | None) -> tuple[PartitionState, tuple[str, ...]] | None:
    if making is None or making.state is RunState.SUCCEEDED:
        return None
    states = {RunState.RUNNING: PartitionState.RUNNING, RunState.FAILED: PartitionState.FAILED, RunState.CANCELLED: PartitionState.FAILED}
    # What it waits for tells the run itself: where that waits for this partition, the text would have no end.
    told = making.reasons if making.state is not RunState.SUSPENDED else ()
    why = f": {'; '.join(told)}" if told else ""
    return states.get(making.state, PartitionState.PENDING), (f"run-{making.number}, which makes it, is {making.state}{why}",)


def _reasons(verdicts: Sequence[Judged]) -> tuple[str, ...]:
    """Reasons of verdicts; those of quality, which is meant where nothing is said, stand for themselves."""
    return tuple(f"{_prefix(verdict)}{reason}" for verdict in verdicts for reason in _given(verdict))


def _given(verdict: Judged) -> tuple[str, ...]:
    if verdict.reasons:
        return verdict.reasons
    default = _DEFAULT_REASON[verdict.verdict]
    whole = verdict.verdict is Verdict.NOT_JUDGED or verdict.aspect is not Aspect.QUALITY
    return (default if whole else f"quality {default}",)


def _prefix(verdict: Judged) -> str:
    of = "" if verdict.aspect is Aspect.QUALITY else f"{verdict.aspect.lower()}: "
    return f"{of}not judged: " if verdict.verdict is Verdict.NOT_JUDGED else of


def revised(partition: Partition, revision: int) -> Partition:
    """The partition with the number of its change."""
    return replace(partition, revision=revision)
