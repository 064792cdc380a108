"""The state machine of a run. Pure: time and leases are given.

PENDING --take--> RUNNING --finish--> SUCCEEDED, FAILED, or PENDING again after a pause
PENDING, RUNNING --a partition is not ready--> SUSPENDED --it is--> PENDING
RUNNING --lease or time ran out--> PENDING, or FAILED without attempts left
RUNNING --a more important run needs its place--> PENDING
PENDING, SUSPENDED, RUNNING --cancel--> CANCELLED
FAILED, CANCELLED --retry--> PENDING
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from chassis import backoff
from chassis.errors import ArterialError, Reason

DEFAULT_MAX_ATTEMPTS, DEFAULT_TIER = 3, 2
# The pause after a failed attempt doubles between these, so that a run that always fails does not occupy its worker.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 2.0, 600.0
# Runs that failed together do not come back together: each waits between this share of the pause and all of it.
MIN_JITTER = 0.5
# A run that was stopped for another leaves its place to that one for so long.
PREEMPTED_SECONDS = 10.0
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
class Terms:
    """On what terms a run is done, from the time when it was asked for on. 0: no limit, or nothing worth counting; of a tier, that of what
    the run makes."""

    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    timeout_seconds: int = 0
    max_concurrent: int = 0
    memory_mib: int = 0
    cpu_milli: int = 0
    tier: int = DEFAULT_TIER


@dataclass(frozen=True)
class Input:
    """Partitions of a dataset that a run reads: `days` of them, back from its own date, that itself included."""

    dataset: str
    days: int


@dataclass(frozen=True)
class Capacity:
    """What a worker, or a run, has or needs: memory in MiB and thousandths of a core."""

    memory_mib: int = 0
    cpu_milli: int = 0


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
    # Attempts begun; those that failed or whose lease or time ran out are `failures`: only they count against max_attempts.
    attempt: int = 0
    failures: int = 0
    terms: Terms = Terms()
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
    # The schedule and tick that it was made for; empty if somebody asked for it.
    schedule: str = ""
    scheduled_for: datetime | None = None
    inputs: tuple[Input, ...] = ()
    produces: tuple[str, ...] = ()
    # What the worker of the current attempt declared.
    worker_kinds: tuple[str, ...] = ()
    worker_has: Capacity = Capacity()
    # The worker that keeps a place for it, and since when; empty for none.
    place_worker: str = ""
    made_place_at: datetime | None = None

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
    kinds: tuple[str, ...] = ()
    worker_has: Capacity = Capacity()


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
    """The run after its lease and its time were looked at: where one ran out, the attempt has failed.

    After a lost lease the next attempt may begin at once; one that takes too long is likely to do so again, and pauses.
    """
    if run.state is not RunState.RUNNING or run.lease_expires_at is None or run.started_at is None:
        return run
    if run.lease_expires_at <= now:
        return replace(_failed(run, f"attempt {run.attempt}: the lease of {run.worker} ran out", now), due_at=now)
    limit = run.terms.timeout_seconds
    if limit and run.started_at + timedelta(seconds=limit) <= now:
        return _failed(run, f"attempt {run.attempt}: took longer than {limit} s", now)
    return run


def preempted(run: Run, other: Run, now: datetime) -> Run:
    """The run, stopped because a more important one needs its place; that costs it no attempt."""
    why = f"attempt {run.attempt}: stopped to make place for {other.run_id} of tier {other.terms.tier}"
    freed = replace(_released(run), state=RunState.PENDING, reasons=(why,))
    return replace(freed, due_at=now + timedelta(seconds=PREEMPTED_SECONDS))


def ranked(run: Run, tiers: Sequence[int]) -> Run:
    """The run with a tier: its own, else the most important of those of what it makes."""
    return run if run.terms.tier else replace(run, terms=replace(run.terms, tier=min(tiers, default=DEFAULT_TIER)))


def placed(run: Run, worker: str, now: datetime) -> Run:
    """The run, with a worker that keeps a place for it."""
    return replace(run, place_worker=worker, made_place_at=now)


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
        worker_kinds=lease.kinds,
        worker_has=lease.worker_has,
        place_worker="",
        made_place_at=None,
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


def retried(run: Run, why: str, now: datetime) -> Run:
    """The run with all its attempts again, not before it was due; one that has not ended stays as it is. Raises REFUSED if it succeeded."""
    if run.open:
        return run
    if run.state is RunState.SUCCEEDED:
        raise ArterialError(Reason.REFUSED, f"{run.run_id} has succeeded: ask for another run instead")
    again = replace(_released(run), state=RunState.PENDING, reasons=(why,), failures=0, ended_at=None)
    return replace(again, due_at=max(run.due_at, now), place_worker="", made_place_at=None)


def backoff_seconds(failures: int) -> float:
    """Longest pause after so many failed attempts."""
    return backoff.backoff_seconds(failures, MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS)


def jitter(number: int, failures: int) -> float:
    """Share of the longest pause that this run waits, MIN_JITTER to 1: the same whenever it is computed, spread over runs."""
    digest = hashlib.sha256(f"{number}/{failures}".encode()).digest()
    return MIN_JITTER + (1 - MIN_JITTER) * int.from_bytes(digest[:4], "big") / 2**32


def _released(run: Run) -> Run:
    return replace(run, lease="", lease_expires_at=None)


def _failed(run: Run, why: str, now: datetime) -> Run:
    failures = run.failures + 1
    freed = replace(_released(run), failures=failures, reasons=(why,))
    if failures >= run.terms.max_attempts:
        return replace(freed, state=RunState.FAILED, ended_at=now)
    pause = backoff_seconds(failures) * jitter(run.number, failures)
    return replace(freed, state=RunState.PENDING, due_at=now + timedelta(seconds=pause))


def _expect(run: Run, lease: str) -> None:
    if not lease or run.lease != lease:
        why = f" ({'; '.join(run.reasons)})" if run.reasons else ""
        raise ArterialError(Reason.CONFLICT, f"the lease of {run.run_id} is not the current one: it is {run.state}{why}, stop working")
