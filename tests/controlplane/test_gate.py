"""Which partitions a run reads, what their states follow from, and what the gate says."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arterial.api.controlplane.v1 import specs_pb2
from services.controlplane import gate, partitions
from services.controlplane.partitions import Judged, Partition, PartitionKey, PartitionState, Verdict
from services.controlplane.runs import Run

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


@pytest.mark.parametrize("wrong", [PartitionState.BLOCKED, PartitionState.UNKNOWN])
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
    key = PartitionKey(TRIPS, DAY)
    bare, told = (partitions.marked(None, Judged(key, verdict, 3, reasons), NOW) for reasons in ((), ("older than 7 days",)))
    assert bare is not None and told is not None and bare.state is told.state is expected
    assert bool(bare.reasons) == (verdict is not Verdict.PASS)
    assert told.reasons == (("not judged: older than 7 days",) if verdict is Verdict.NOT_JUDGED else ("older than 7 days",))


VERDICTS = st.builds(
    Judged,
    key=st.just(PartitionKey(TRIPS, DAY)),
    verdict=st.sampled_from(list(Verdict)),
    table_version=st.integers(-1, 5),
    reasons=st.lists(st.sampled_from(["a", "b"]), max_size=1).map(tuple),
)


@given(st.lists(VERDICTS, min_size=1, max_size=12))
def test_the_newest_table_version_wins_in_any_order_of_arrival(verdicts: list[Judged]) -> None:
    """One by one or in one report, the mark is that of the last verdict on the newest version; the same again changes nothing."""
    known: Partition | None = None
    for place, judged in enumerate(verdicts):
        known = partitions.marked(known, judged, NOW + timedelta(seconds=place)) or known
    (last,) = partitions.newest(verdicts)
    assert known is not None and known.table_version == max(judged.table_version for judged in verdicts)
    assert known.state is partitions.STATE_OF[last.verdict]
    assert partitions.marked(known, last, NOW + timedelta(days=1)) is None


def test_the_time_of_a_state_moves_only_with_the_state() -> None:
    """New reasons on a blocked partition leave it blocked since then."""
    key = PartitionKey(TRIPS, DAY)
    first = partitions.marked(None, Judged(key, Verdict.FAIL, 1, ("a",)), NOW)
    second = partitions.marked(first, Judged(key, Verdict.FAIL, 2, ("b",)), NOW + timedelta(hours=1))
    third = partitions.marked(second, Judged(key, Verdict.PASS, 3), NOW + timedelta(hours=2))
    assert second is not None and third is not None
    assert (second.reasons, second.state_changed_at, third.state_changed_at) == (("b",), NOW, NOW + timedelta(hours=2))
