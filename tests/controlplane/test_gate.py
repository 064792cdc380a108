"""Which partitions a run reads, what their states follow from, and what the gate says."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arterial.api.controlplane.v1 import specs_pb2
from services.controlplane.jobs import gate
from services.controlplane.jobs.runs import Run, RunState
from services.controlplane.partitions import partitions
from services.controlplane.partitions.partitions import (
    Aspect,
    Evidence,
    Judged,
    Making,
    Override,
    Partition,
    PartitionKey,
    PartitionState,
    Verdict,
)

NOW = datetime(2026, 11, 25, tzinfo=UTC)
DAY = date(2026, 11, 24)
TRIPS, PINGS = "lake/curated/trips", "lake/curated/gps_pings_v1"
MODELS = {
    "eta": specs_pb2.ModelSpec(
        service="eta", inputs=[specs_pb2.ModelInput(dataset=TRIPS, days=28), specs_pb2.ModelInput(dataset=PINGS, days=1)]
    )
}


def run(kind: str = "eta-train", subject: str = "eta") -> Run:
    """A run of the day."""
    return Run(kind, subject, "local", DAY, NOW, NOW)


def state(dataset: str, days_before: int, state: PartitionState, *reasons: str) -> dict[PartitionKey, Partition]:
    """One partition, marked."""
    key = PartitionKey(dataset, DAY - timedelta(days=days_before))
    return {key: Partition(key, state, 1, reasons)}


READY = state(TRIPS, 0, PartitionState.READY) | state(PINGS, 0, PartitionState.READY)


def test_a_run_may_run_when_its_day_is_ready_and_no_other_is_wrong() -> None:
    """Days before it need no mark, days outside of the window do not matter."""
    assert gate.closed_by(run(), MODELS, READY | state(TRIPS, 3, PartitionState.READY)) == []
    outside = state(TRIPS, 28, PartitionState.BLOCKED) | state(PINGS, 1, PartitionState.BLOCKED) | state(TRIPS, -1, PartitionState.BLOCKED)
    assert gate.closed_by(run(), MODELS, READY | outside) == []


@pytest.mark.parametrize("wrong", [PartitionState.BLOCKED, PartitionState.UNKNOWN, PartitionState.RUNNING, PartitionState.FAILED])
def test_a_wrong_partition_within_the_window_closes_the_gate(wrong: PartitionState) -> None:
    """The reason names dataset, date, state and the partition's own reasons."""
    marked = READY | state(TRIPS, 27, wrong, "half the rows are missing", "in market 2")
    assert gate.closed_by(run(), MODELS, marked) == [f"{TRIPS} 2026-10-28 is {wrong}: half the rows are missing; in market 2"]


def test_a_day_that_nobody_reported_closes_the_gate() -> None:
    """Of each input."""
    assert gate.closed_by(run(), MODELS, {}) == [
        f"{TRIPS} 2026-11-24 is PENDING: nothing was reported yet",
        f"{PINGS} 2026-11-24 is PENDING: nothing was reported yet",
    ]


def test_reasons_are_bounded_and_newest_first() -> None:
    """Twenty, and how many more."""
    blocked = {key: mark for back in range(28) for key, mark in state(TRIPS, back, PartitionState.BLOCKED, "x").items()}
    reasons = gate.closed_by(run(), MODELS, blocked | state(PINGS, 0, PartitionState.READY))
    assert len(reasons) == gate.MAX_REASONS + 1 and "2026-11-24" in reasons[0] and reasons[-1] == "and 8 more partitions"


def test_what_is_no_training_reads_nothing_and_a_model_that_is_gone_is_a_reason() -> None:
    """Compaction of a table just runs; training of an undeclared model waits."""
    assert gate.closed_by(run("compact", "raw/trips"), MODELS, {}) == []
    assert gate.closed_by(run(subject="gone"), MODELS, READY) == ["the model gone is not declared"]
    assert gate.mismatch("eta-train", MODELS["eta"]) is None and "eta-train" in str(gate.mismatch("radar-train", MODELS["eta"]))


KEY = PartitionKey(TRIPS, DAY)


def said(verdict: Verdict, *reasons: str, aspect: Aspect = Aspect.QUALITY, version: int = 3) -> Judged:
    """A verdict on the day."""
    return Judged(KEY, verdict, version, reasons, aspect=aspect)


def mark(*verdicts: Judged, before: Partition | None = None, now: datetime = NOW, **more: Any) -> Partition:
    """The partition of the day, as it follows."""
    found = partitions.marked(before, KEY, Evidence(verdicts, **more), now)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict.PASS, PartitionState.READY),
        (Verdict.FAIL, PartitionState.BLOCKED),
        (Verdict.UNKNOWN, PartitionState.UNKNOWN),
        (Verdict.NOT_JUDGED, PartitionState.READY),
    ],
)
def test_a_verdict_gives_the_state_and_what_needs_a_reason_has_one(verdict: Verdict, expected: PartitionState) -> None:
    """Also where the monitor gave none; what was not judged says so in any case."""
    bare, told = (mark(said(verdict, *reasons)) for reasons in ((), ("older than 7 days",)))
    assert bare.state is told.state is expected
    assert bool(bare.reasons) == (verdict is not Verdict.PASS)
    expected_reasons = {Verdict.PASS: (), Verdict.NOT_JUDGED: ("not judged: older than 7 days",)}
    assert told.reasons == expected_reasons.get(verdict, ("older than 7 days",))


def test_the_state_follows_from_all_aspects() -> None:
    """One that failed blocks, whatever the others say; one that could not be told leaves it unknown; reasons name the aspect."""
    good = said(Verdict.PASS), said(Verdict.PASS, aspect=Aspect.FRESHNESS), said(Verdict.NOT_JUDGED, aspect=Aspect.COMPLETENESS)
    assert mark(*good).state is PartitionState.READY
    late = mark(*good[:1], said(Verdict.FAIL, "2 h late", aspect=Aspect.FRESHNESS), said(Verdict.UNKNOWN, aspect=Aspect.COMPLETENESS))
    assert (late.state, late.reasons[0]) == (PartitionState.BLOCKED, "freshness: 2 h late")
    assert mark(*good[:2], said(Verdict.UNKNOWN, aspect=Aspect.COMPLETENESS)).state is PartitionState.UNKNOWN


def test_without_a_verdict_on_its_quality_a_partition_is_not_ready() -> None:
    """Unless it is of a dataset that is not monitored: then it must be complete; a day that is fresh may have just begun."""
    fresh, complete = (said(Verdict.PASS, aspect=aspect) for aspect in (Aspect.FRESHNESS, Aspect.COMPLETENESS))
    assert (mark(fresh, complete).state, mark(fresh).reasons) == (PartitionState.PENDING, ("quality is not told yet",))
    begun = mark(fresh, needs_quality=False)
    assert (begun.state, begun.reasons) == (PartitionState.PENDING, ("completeness is not told yet",))
    assert mark(fresh, complete, needs_quality=False).state is mark(said(Verdict.PASS), needs_quality=False).state is PartitionState.READY
    assert partitions.judged(Evidence(needs_quality=False)) == (PartitionState.PENDING, ())


@pytest.mark.parametrize(
    ("state", "verdicts", "expected"),
    [
        (RunState.PENDING, (), PartitionState.PENDING),
        (RunState.SUSPENDED, (), PartitionState.PENDING),
        (RunState.RUNNING, (), PartitionState.RUNNING),
        (RunState.RUNNING, (Verdict.UNKNOWN,), PartitionState.RUNNING),
        (RunState.RUNNING, (Verdict.PASS,), PartitionState.READY),
        (RunState.FAILED, (), PartitionState.FAILED),
        (RunState.CANCELLED, (Verdict.UNKNOWN,), PartitionState.FAILED),
        (RunState.FAILED, (Verdict.FAIL,), PartitionState.BLOCKED),
        (RunState.PENDING, (Verdict.UNKNOWN,), PartitionState.UNKNOWN),
        (RunState.SUCCEEDED, (), PartitionState.PENDING),
    ],
)
def test_the_run_that_makes_it_speaks_where_verdicts_do_not(
    state: RunState, verdicts: tuple[Verdict, ...], expected: PartitionState
) -> None:
    """What was good before it is remade stays ready; what could not be made has the run's reasons."""
    making = Making(7, state, ("disk full",))
    found = partitions.judged(Evidence(tuple(map(said, verdicts)), making))
    assert found[0] is expected
    if expected in (PartitionState.RUNNING, PartitionState.FAILED):
        assert found[1][0] == f"run-7, which makes it, is {state}: disk full"


def test_an_override_wins_and_says_what_would_hold_without_it() -> None:
    """Who and why are shown; withdrawn, the verdicts hold again."""
    bad = said(Verdict.FAIL, "half the rows")
    override = Override(PartitionState.READY, "half is enough", "kim", NOW)
    found = mark(bad, override=override)
    assert (found.state, found.judged_state) == (PartitionState.READY, PartitionState.BLOCKED)
    assert found.reasons == ("overridden by kim: half is enough", "without it BLOCKED: half the rows")
    assert mark(bad, before=found).state is PartitionState.BLOCKED


VERDICTS = st.builds(
    Judged,
    key=st.just(KEY),
    verdict=st.sampled_from(list(Verdict)),
    table_version=st.integers(-1, 5),
    reasons=st.lists(st.sampled_from(["a", "b"]), max_size=1).map(tuple),
    aspect=st.sampled_from(list(Aspect)),
)


@given(st.lists(VERDICTS, min_size=1, max_size=12))
def test_the_newest_table_version_of_an_aspect_wins_in_any_order_of_arrival(verdicts: list[Judged]) -> None:
    """One by one or in one report, of each aspect the last verdict on the newest version is known; the same again changes nothing."""
    known: list[Judged] = []
    for judged in verdicts:
        known = partitions.newest([judged], known)
    assert known == partitions.newest(verdicts) == partitions.newest(known, known)
    for judged in known:
        assert judged.table_version == max(other.table_version for other in verdicts if other.aspect is judged.aspect)


def test_the_time_of_a_state_moves_only_with_the_state() -> None:
    """New reasons on a blocked partition leave it blocked since then; the same again changes nothing."""
    first = mark(said(Verdict.FAIL, "a"))
    second = mark(said(Verdict.FAIL, "b"), before=first, now=NOW + timedelta(hours=1))
    third = mark(said(Verdict.PASS), before=second, now=NOW + timedelta(hours=2))
    assert (second.reasons, second.state_changed_at, third.state_changed_at) == (("b",), NOW, NOW + timedelta(hours=2))
    assert partitions.marked(third, KEY, Evidence((said(Verdict.PASS),)), NOW + timedelta(days=1)) is None
