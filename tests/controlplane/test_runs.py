"""The state machine of runs: any sequence of what may happen keeps its invariants."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import ArterialError, Reason
from services.controlplane.jobs import runs
from services.controlplane.jobs.runs import Lease, Outcome, Run, RunState, Terms

START = datetime(2026, 11, 24, tzinfo=UTC)
TAKE_SECONDS = 60
NAMES = ("take", "keep", "keep_stale", "succeed", "fail", "fail_stale", "close", "open", "expire", "preempt", "cancel", "retry", "wait")
STEPS = st.lists(st.sampled_from(NAMES), max_size=40)


def fresh(max_attempts: int = 3) -> Run:
    """A run that nobody has taken."""
    return Run("eta-train", "eta", "local", date(2026, 11, 24), START, START, number=7, terms=Terms(max_attempts=max_attempts))


def step(run: Run, name: str, now: datetime) -> Run:
    """The run after one step; a step that is refused leaves it as it is."""
    lease = "stale" if name.endswith("stale") else run.lease or "none"
    steps: dict[str, Callable[[], Run]] = {
        "take": lambda: runs.taken(run, Lease(f"lease-{run.attempt + 1}", "worker", TAKE_SECONDS), now),
        "keep": lambda: runs.kept(run, lease, now),
        "succeed": lambda: runs.finished(run, lease, Outcome(True, outputs={"version": "1"}), now),
        "fail": lambda: runs.finished(run, lease, Outcome(False, "no memory"), now),
        "close": lambda: runs.gated(run, ["lake/curated/trips 2026-11-24 is BLOCKED"]),
        "open": lambda: runs.gated(run, []),
        "expire": lambda: runs.expired(run, now),
        "preempt": lambda: runs.preempted(run, replace(fresh(), number=8, terms=Terms(tier=1)), now),
        "cancel": lambda: runs.cancelled(run, "because", now),
        "retry": lambda: runs.retried(run, "the disk is empty again", now),
        "wait": lambda: run,
    }
    if name == "preempt" and run.state is not RunState.RUNNING:
        return run
    if name == "take" and (run.state is not RunState.PENDING or run.due_at > now):
        return run
    try:
        return steps[name.removesuffix("_stale")]()
    except ArterialError as error:
        assert error.reason is (Reason.REFUSED if name == "retry" else Reason.CONFLICT)
        return run


@given(steps=STEPS, max_attempts=st.integers(1, 4))
def test_no_sequence_of_steps_breaks_the_state_machine(steps: list[str], max_attempts: int) -> None:
    """Ended is for ever but for a retry; running means a lease; suspended has reasons; failures stay below max_attempts until it failed."""
    run, now = fresh(max_attempts), START
    for name in steps:
        now += timedelta(seconds=700 if name == "wait" else 61 if name == "expire" else 1)
        before, run = run, step(run, name, now)
        assert (run.state is RunState.RUNNING) == (run.lease_expires_at is not None)
        assert run.state is not RunState.SUSPENDED or (run.reasons and run.was_suspended)
        assert run.open == (run.ended_at is None)
        assert run.attempt >= before.attempt and run.was_suspended >= before.was_suspended
        assert run.failures >= before.failures or name == "retry"
        assert (run.failures == max_attempts) == (run.state is RunState.FAILED) or run.state is RunState.CANCELLED
        assert before.open or name == "retry" or replace(run, reasons=before.reasons) == before
        assert run.state is not RunState.SUCCEEDED or run.outputs == {"version": "1"}


@given(steps=STEPS)
def test_only_the_current_lease_may_speak(steps: list[str]) -> None:
    """Whatever happened before, a lease of an earlier attempt neither keeps nor finishes the run."""
    run, now = fresh(), START
    for name in steps:
        now += timedelta(seconds=61)
        run = step(run, name, now)
    for attempt in range(run.attempt + 1):
        lease = f"lease-{attempt}"
        if lease not in (run.lease, run.finished_lease):
            with pytest.raises(ArterialError):
                runs.kept(run, lease, now)
            with pytest.raises(ArterialError):
                runs.finished(run, lease, Outcome(True), now)


def test_finishing_twice_with_the_same_lease_changes_nothing() -> None:
    """The answer was lost, the worker asks again: success and failure alike."""
    taken = runs.taken(fresh(), Lease("one", "w", 60), START)
    for outcome in (Outcome(True), Outcome(False, "no")):
        done = runs.finished(taken, "one", outcome, START)
        assert runs.finished(done, "one", outcome, START + timedelta(hours=1)) == done


def test_pauses_between_attempts_grow_up_to_a_limit() -> None:
    """And stay finite for any number of failures."""
    pauses = [runs.backoff_seconds(failures) for failures in (1, 2, 3, 20, 10_000)]
    assert pauses == [2.0, 4.0, 8.0, runs.MAX_BACKOFF_SECONDS, runs.MAX_BACKOFF_SECONDS]


@given(number=st.integers(1, 2**60), failures=st.integers(1, 100))
def test_pauses_are_spread_and_the_same_whenever_asked(number: int, failures: int) -> None:
    """Between half of the longest pause and all of it; two runs that failed together do not come back together."""
    share = runs.jitter(number, failures)
    assert runs.MIN_JITTER <= share <= 1 and share == runs.jitter(number, failures) != runs.jitter(number + 1, failures)
    taken = runs.taken(replace(fresh(), number=number), Lease("one", "w", 60), START)
    pause = (runs.finished(taken, "one", Outcome(False, "no"), START).due_at - START).total_seconds()
    assert runs.MIN_BACKOFF_SECONDS * runs.MIN_JITTER <= pause <= runs.MIN_BACKOFF_SECONDS


def test_an_attempt_that_takes_too_long_has_failed_although_its_lease_is_kept() -> None:
    """It pauses, as after any failure; the time of the next attempt counts anew."""
    run = replace(fresh(2), terms=Terms(max_attempts=2, timeout_seconds=100))
    now = START
    run = runs.taken(run, Lease("one", "w", 60), now)
    run = runs.kept(run, "one", now + timedelta(seconds=59))
    assert runs.expired(run, now + timedelta(seconds=99)) == run
    over = runs.expired(run, now + timedelta(seconds=100))
    assert (over.state, over.failures, over.reasons) == (RunState.PENDING, 1, ("attempt 1: took longer than 100 s",))
    assert over.due_at > now + timedelta(seconds=100)
    again = runs.taken(over, Lease("two", "w", 60), now + timedelta(seconds=200))
    assert runs.expired(again, now + timedelta(seconds=250)).state is RunState.RUNNING
    last = runs.expired(replace(again, lease_expires_at=now + timedelta(seconds=999)), now + timedelta(seconds=300))
    assert (last.state, last.failures) == (RunState.FAILED, 2)


def test_a_suspension_costs_no_attempt() -> None:
    """A run of one attempt that was stopped for bad data may still run when the data is right."""
    taken = runs.taken(fresh(1), Lease("one", "w", 60), START)
    back = runs.gated(runs.gated(taken, ["blocked"]), [])
    again = runs.taken(back, Lease("two", "w", 60), START)
    assert (back.state, again.attempt, again.failures, again.was_suspended) == (RunState.PENDING, 2, 0, True)


def test_what_is_no_run_id_is_not_found() -> None:
    """Whatever it is."""
    assert runs.number_of("run-12") == 12
    for wrong in ("12", "run-", "run--1", "run-x", "run-²", "run-" + "9" * 30):
        with pytest.raises(ArterialError) as caught:
            runs.number_of(wrong)
        assert caught.value.reason is Reason.NOT_FOUND
