"""The state machine of a run. Pure: time and leases are given.

PENDING --take--> RUNNING --finish--> SUCCEEDED, FAILED, or PENDING again after a pause
PENDING, RUNNING --a partition is not ready--> SUSPENDED --it is--> PENDING
RUNNING --lease ran out--> PENDING, or FAILED without attempts left
PENDING, SUSPENDED, RUNNING --cancel--> CANCELLED
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from chassis.errors import ArterialError, Reason

DEFAULT_MAX_ATTEMPTS = 3
# The pause after a failed attempt doubles between these, so that a run that always fails does not occupy its worker.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 2.0, 600.0
TRAINING_SUFFIX = "-train"


class RunState(StrEnum):
    """Where a run stands."""

    PENDING = "PENDING"
    SUSPENDED = "SUSPENDED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


OPEN_STATES = frozenset({RunState.PENDING, RunState.SUSPENDED, RunState.RUNNING})


@dataclass(frozen=True)
class Run:
    """A run. RUNNING if and only if somebody holds a current lease; a CANCELLED one keeps its lease, so that its worker can be told."""

    kind: str
    subject: str
    cell: str
    partition_date: date
    created_at: datetime
    due_at: datetime
    number: int = 0
    state: RunState = RunState.PENDING
    reasons: tuple[str, ...] = ()
    # Attempts begun; those that failed or whose lease ran out are `failures`: only they count against max_attempts.
    attempt: int = 0
    failures: int = 0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    worker: str = ""
    lease: str = ""
    # How long the lease lasts without KeepRun.
    lease_seconds: int = 0
    lease_expires_at: datetime | None = None
    finished_lease: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    was_suspended: bool = False

    @property
    def run_id(self) -> str:
        """What callers name it by."""
        return f"run-{self.number}"

    @property
    def open(self) -> bool:
        """True until it has ended."""
        return self.state in OPEN_STATES

    @property
    def training(self) -> bool:
        """True if it trains the model that is its subject."""
        return self.kind.endswith(TRAINING_SUFFIX)


@dataclass(frozen=True)
class Lease:
    """What a worker holds a run by."""

    token: str
    worker: str
    seconds: int


@dataclass(frozen=True)
class Outcome:
    """What a worker says of its attempt."""

    succeeded: bool
    reason: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)


def number_of(run_id: str) -> int:
    """The number in a run's id. Raises NOT_FOUND if it is none."""
    digits = run_id.removeprefix("run-")
    if not (run_id.startswith("run-") and digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise ArterialError(Reason.NOT_FOUND, f"run {run_id} does not exist")
    return int(digits)


def gated(run: Run, closed: Sequence[str]) -> Run:
    """The run after the gate was asked: `closed` says why it may not run, nothing if it may. A running one loses its lease."""
    if closed and run.open:
        return replace(_released(run), state=RunState.SUSPENDED, reasons=tuple(closed), was_suspended=True)
    if run.state is RunState.SUSPENDED and not closed:
        return replace(run, state=RunState.PENDING, reasons=())
    return run


def expired(run: Run, now: datetime) -> Run:
    """The run after its lease was looked at: one that ran out is an attempt that failed, the next may begin at once."""
    if run.state is not RunState.RUNNING or run.lease_expires_at is None or run.lease_expires_at > now:
        return run
    return replace(_failed(run, f"attempt {run.attempt}: the lease of {run.worker} ran out", now), due_at=now)


def taken(run: Run, lease: Lease, now: datetime) -> Run:
    """The run as its next attempt, held by the lease. Only a PENDING one that is due may be taken; any other is a defect of the caller."""
    if run.state is not RunState.PENDING or run.due_at > now:
        raise ValueError(f"{run.run_id} is {run.state}, due at {run.due_at}: it cannot be taken at {now}")
    return replace(
        run,
        state=RunState.RUNNING,
        reasons=(),
        attempt=run.attempt + 1,
        worker=lease.worker,
        lease=lease.token,
        lease_seconds=lease.seconds,
        lease_expires_at=now + timedelta(seconds=lease.seconds),
        started_at=now,
    )


def kept(run: Run, lease: str, now: datetime) -> Run:
    """The run with its lease extended; of a cancelled one nothing changes. Raises CONFLICT if the lease is not the current one."""
    _expect(run, lease)
    return replace(run, lease_expires_at=now + timedelta(seconds=run.lease_seconds)) if run.state is RunState.RUNNING else run


def finished(run: Run, lease: str, outcome: Outcome, now: datetime) -> Run:
    """The run after an attempt. The same lease again changes nothing.

    Raises:
        ArterialError: CONFLICT if the lease is not the current one, or the run was cancelled.
    """
    if lease and lease == run.finished_lease:
        return run
    _expect(run, lease)
    if run.state is not RunState.RUNNING:
        raise ArterialError(Reason.CONFLICT, f"{run.run_id} is {run.state}: what was done is not counted")
    if not outcome.succeeded:
        why = outcome.reason or "the worker gave no reason"
        return replace(_failed(run, f"attempt {run.attempt}: {why}", now), finished_lease=lease)
    done = replace(_released(run), state=RunState.SUCCEEDED, reasons=(), ended_at=now)
    return replace(done, outputs=dict(outcome.outputs), finished_lease=lease)


def cancelled(run: Run, reason: str, now: datetime) -> Run:
    """The run ended by somebody; one that has ended stays as it is."""
    if not run.open:
        return run
    return replace(run, state=RunState.CANCELLED, reasons=(f"cancelled: {reason}",), ended_at=now, lease_expires_at=None)


def backoff_seconds(failures: int) -> float:
    """Pause after so many failed attempts."""
    # The exponent is bounded before it is used: 2.0 ** 2000 is no float.
    return min(MIN_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30), MAX_BACKOFF_SECONDS)


def _released(run: Run) -> Run:
    return replace(run, lease="", lease_expires_at=None)


def _failed(run: Run, why: str, now: datetime) -> Run:
    failures = run.failures + 1
    freed = replace(_released(run), failures=failures, reasons=(why,))
    if failures >= run.max_attempts:
        return replace(freed, state=RunState.FAILED, ended_at=now)
    return replace(freed, state=RunState.PENDING, due_at=now + timedelta(seconds=backoff_seconds(failures)))


def _expect(run: Run, lease: str) -> None:
    if not lease or run.lease != lease:
        raise ArterialError(Reason.CONFLICT, f"the lease of {run.run_id} is not the current one (it is {run.state}): stop working")
