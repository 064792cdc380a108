"""One cause over several datasets, and what becomes of it."""

from dataclasses import replace
from datetime import UTC, datetime

from services.dqm.clustering import Relations, cluster
from services.dqm.incidents import Evidence, Finding, Incident, Kind, State, reconcile
from services.dqm.judging import Seen, partition
from services.dqm.verdicts import Verdict

RAW, EVENTS, TRIPS, PAYMENTS = (
    "lake/raw/trip_events_v2",
    "lake/curated/trip_events_v2",
    "lake/curated/trips",
    "lake/curated/payment_events_v1",
)
LINEAGE = {EVENTS: frozenset({RAW}), TRIPS: frozenset({RAW, EVENTS}), PAYMENTS: frozenset({"lake/raw/payment_events_v1"})}
DATE = "2026-11-24"


def finding(dataset: str, kind: Kind = Kind.NULLS, columns: tuple[str, ...] = ("pickup_latitude",), market: str = "2") -> Finding:
    """A finding with a point of evidence."""
    points = tuple(Evidence(dataset, market, column, "METRIC_MISSING_PERCENT", 0.0, 30.0, 50.0) for column in columns)
    return Finding(kind, dataset, DATE, market, columns, 2, points, 7)


def incident(of: Finding, state: State = State.OPEN) -> Incident:
    """An incident."""
    return Incident("i-1", state, of, "a sentence", datetime(2026, 11, 25, tzinfo=UTC))


def test_a_cause_is_told_of_the_most_upstream_dataset() -> None:
    """What events and trips both show is one incident of the events, whatever their order; its evidence speaks of both."""
    for found in ([finding(TRIPS), finding(EVENTS)], [finding(EVENTS), finding(TRIPS)]):
        (told,) = cluster(found, Relations(LINEAGE))
        assert (told.dataset, told.affected) == (EVENTS, (TRIPS,))
        assert {point.dataset for point in told.evidence} == {EVENTS, TRIPS}


def test_tables_made_of_the_same_share_its_faults() -> None:
    """Two tables beside each other, both made of raw: one incident; tables of different sources: two."""
    beside = Relations(LINEAGE | {TRIPS: frozenset({RAW})})
    (told,) = cluster([finding(EVENTS), finding(TRIPS)], beside)
    assert told.dataset == EVENTS
    assert len(cluster([finding(EVENTS, Kind.VOLUME, ()), finding(PAYMENTS, Kind.VOLUME, ())], beside)) == 2


def test_without_lineage_market_and_column_decide() -> None:
    """Names give the order; another column or market is another cause."""
    (told,) = cluster([finding(TRIPS), finding(EVENTS)], Relations())
    assert told.dataset == EVENTS
    assert len(cluster([finding(TRIPS), finding(EVENTS, columns=("fare",))], Relations())) == 2
    assert len(cluster([finding(TRIPS), finding(EVENTS, market="1")], Relations())) == 2


def test_what_lineage_makes_of_a_column_is_explained_and_affected() -> None:
    """A shift in a column that is made from the hit one is no second incident; all that depends on it is affected."""
    cause = finding(EVENTS, Kind.SHIFT, ("duration_seconds",))
    impacts = {cause: {TRIPS: frozenset({"speed_mps"}), "model/eta": frozenset[str]()}}
    (told,) = cluster([cause, finding(TRIPS, Kind.SHIFT, ("speed_mps",))], Relations(LINEAGE, impacts))
    assert told.affected == (TRIPS, "model/eta")


def test_an_incident_keeps_its_id_when_its_cause_is_seen_further_up() -> None:
    """Trips were profiled first, events later: the incident moves up, it does not become two."""
    (told,) = cluster([finding(EVENTS), finding(TRIPS)], Relations(LINEAGE))
    done = reconcile([incident(finding(TRIPS))], [told], {EVENTS, TRIPS})
    assert [kept.finding.dataset for kept in done.kept] == [EVENTS]
    assert not done.opened
    assert not done.resolved


def test_an_incident_is_resolved_only_by_a_good_partition() -> None:
    """Nothing found resolves it if its dataset was judged; if that could not be judged, it stays as it was."""
    known = incident(finding(EVENTS))
    assert reconcile([known], [], {EVENTS}).resolved == (known,)
    assert reconcile([known], [], {TRIPS}).resolved == ()


def test_another_kind_is_another_incident() -> None:
    """A correction that cures the nulls but halves the rows resolves one incident and opens another."""
    done = reconcile([incident(finding(EVENTS))], [finding(EVENTS, Kind.VOLUME, ())], {EVENTS})
    assert ([found.kind for found in done.opened], len(done.resolved)) == ([Kind.VOLUME], 1)


def test_verdicts_follow_from_open_incidents() -> None:
    """FAIL where a cause shows or reaches, with its sentence; else PASS; UNKNOWN where nothing could be told; old ones are NOT_JUDGED."""
    open_one = incident(replace(finding(EVENTS), affected=(TRIPS,)))
    good = Seen((), 0, 100, 0)
    assert partition(EVENTS, DATE, 7, good, [open_one]).verdict is Verdict.FAIL
    downstream = partition(TRIPS, DATE, 3, good, [open_one])
    assert (downstream.verdict, downstream.reasons, downstream.incident_ids) == (Verdict.FAIL, ("a sentence",), ("i-1",))
    assert partition(PAYMENTS, DATE, 3, good, [open_one]).verdict is Verdict.PASS
    assert partition(EVENTS, "2026-11-25", 8, good, [open_one]).verdict is Verdict.PASS
    assert partition(PAYMENTS, DATE, 3, Seen((), 0, 0, 0, "its statistics are missing"), []).verdict is Verdict.UNKNOWN
    assert partition(PAYMENTS, DATE, 3, None, []).verdict is Verdict.NOT_JUDGED
