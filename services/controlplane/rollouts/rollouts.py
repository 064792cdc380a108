"""A change that goes from cell to cell: when the next one is shown it, and when it stops. Pure functions on values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from arterial.api.controlplane.v1 import resource_pb2
from chassis.resources import Key
from services.controlplane.watch.statuses import Reporter


class RolloutState(StrEnum):
    """Where a rollout stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    HALTED = "HALTED"
    ABORTED = "ABORTED"


# Not all cells see the same.
OPEN = (RolloutState.RUNNING, RolloutState.HALTED)


# Kinds on which processes report, as they act on each resource; on the others, and on what is removed, nobody does.
REPORTED = frozenset({"Topic", "Schema", "Pipeline", "CuratedTable", "Feature", "Model", "PricingPolicy", "EtaPolicy", "RiskPolicy"})
SILENT = frozenset({"Cell", "Dataset", "QualityRule", "QualityPolicy", "Slo", "Schedule", "ReplicationPolicy", "FareTable", "Owner"})


@dataclass(frozen=True)
class Showing:
    """How a change is shown: to `cells` one after another, or to all at once. With `aborted`, which says why, it takes a rollout back."""

    cells: Sequence[str] = ()
    aborted: str = ""


ALL_AT_ONCE = Showing()


@dataclass(frozen=True)
class Terms:
    """A cell must be well for `soak_seconds` before the next is shown the change, and must have said so within `timeout_seconds`."""

    soak_seconds: float
    timeout_seconds: float


@dataclass(frozen=True)
class Rollout:
    """A change of one resource on its way; the first `shown` of the cells see it."""

    kind: str
    name: str
    generation: int
    cells: tuple[str, ...]
    shown: int
    state: RolloutState
    reason: str
    started_at: datetime
    moved_at: datetime
    removal: bool = False

    @property
    def silent(self) -> bool:
        """True if no process reports on it: what the cell says of anything decides."""
        return self.removal or self.kind in SILENT

    @property
    def current(self) -> str:
        """The cell whose health decides."""
        return self.cells[self.shown - 1]


@dataclass(frozen=True)
class UnderWay:
    """A resource that not all cells see alike: its version (0: it was removed), and what those see without that (None: nothing)."""

    key: Key
    version: int
    former: resource_pb2.Resource | None


def order(canary: str, cells: Iterable[str]) -> tuple[str, ...]:
    """The canary first, then the others by name."""
    return (canary, *sorted(set(cells) - {canary}))


def judged(rollout: Rollout, reports: Iterable[tuple[Reporter, resource_pb2.Status]], now: datetime, terms: Terms) -> Rollout:
    """The rollout after a look at what the processes of its current cell report of the resource."""
    told = [(reporter, status) for reporter, status in reports if reporter.cell == rollout.current]
    bad = _bad(rollout, told)
    if bad:
        return _halted(rollout, bad, now)
    waiting = _waiting(rollout, told)
    elapsed = (now - rollout.moved_at).total_seconds()
    if waiting and elapsed >= terms.timeout_seconds:
        return _halted(rollout, f"cell {rollout.current}: {waiting} within {terms.timeout_seconds:.0f} s", now)
    if waiting or elapsed < terms.soak_seconds:
        return rollout
    return advanced(rollout, now)


def judged_by_cell(rollout: Rollout, reports: Iterable[tuple[Key, Reporter, resource_pb2.Status]], now: datetime, terms: Terms) -> Rollout:
    """The rollout of a change on which nobody reports, after a look at what the processes of its current cell report of anything.

    The cell is well if nothing of it turned bad since it was shown the change.
    """
    for key, reporter, status in reports:
        for told in status.conditions:
            if told.status == "False" and told.last_transition_time.ToDatetime(UTC) >= rollout.moved_at:
                why = f"cell {reporter.cell}, {reporter.component}, {'/'.join(key)}: {told.reason} {told.message}".rstrip()
                return _halted(rollout, why, now)
    return advanced(rollout, now) if (now - rollout.moved_at).total_seconds() >= terms.soak_seconds else rollout


def advanced(rollout: Rollout, now: datetime) -> Rollout:
    """The rollout, shown to one cell more, or done."""
    if rollout.shown == len(rollout.cells):
        return replace(rollout, state=RolloutState.DONE, moved_at=now)
    return replace(rollout, shown=rollout.shown + 1, moved_at=now)


def _halted(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    return replace(rollout, state=RolloutState.HALTED, reason=reason, moved_at=now)


def _bad(rollout: Rollout, told: Sequence[tuple[Reporter, resource_pb2.Status]]) -> str:
    """What a process says is wrong with this generation; empty if none does."""
    for reporter, status in told:
        for condition in status.conditions:
            if condition.status == "False" and condition.observed_generation >= rollout.generation:
                return f"cell {reporter.cell}, {reporter.component}: {condition.reason} {condition.message}".rstrip()
    return ""


def _waiting(rollout: Rollout, told: Sequence[tuple[Reporter, resource_pb2.Status]]) -> str:
    """What is still waited for; empty if all who report on the resource hold this generation for ready."""
    ready = [(reporter, c) for reporter, status in told for c in status.conditions if c.type == "Ready"]
    if not ready:
        return "no process reported"
    behind = [reporter.component for reporter, c in ready if c.status != "True" or c.observed_generation < rollout.generation]
    return f"{', '.join(behind)} did not say that generation {rollout.generation} is ready" if behind else ""


def condition(rollout: Rollout) -> resource_pb2.Condition:
    """The rollout as a condition of its resource."""
    seen, left = rollout.cells[: rollout.shown], rollout.cells[rollout.shown :]
    status, message = "True", ""
    if rollout.state is RolloutState.RUNNING:
        status, message = "Unknown", f"shown to {', '.join(seen)}" + (f"; next {left[0]}" if left else "")
    if rollout.state is RolloutState.HALTED:
        status, message = "False", f"{rollout.reason}; the former version stays in force everywhere but in {', '.join(seen)}"
    if rollout.state is RolloutState.ABORTED:
        message = f"{rollout.reason}; the former version is in force everywhere again"
    told = resource_pb2.Condition(
        type="RolledOut",
        status=status,
        reason=rollout.state.capitalize(),
        message=message,
        component="arterial-controlplane",
        observed_generation=rollout.generation,
    )
    told.last_transition_time.FromDatetime(rollout.moved_at)
    return told
