"""The demo's report: what counts as detected, and what is a problem."""

from arterial.api.dqm.v1alpha1.dqm_service_pb2 import Incident
from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from cli.answers import RadarAnswers
from cli.report import Observed, build, tells
from simulator.faults import Fault

NULLS = Fault("nulls", "trip_events_v2", "pickup_position", 2)
HALVED = Fault("halved_volume", "payment_events_v1", "", 3)


def incident(dataset: str, market: str, *columns: str) -> Incident:
    """An incident as quality tells it."""
    return Incident(dataset=dataset, market=market, columns=columns)


def test_an_incident_tells_a_fault_by_table_column_and_market() -> None:
    """Each of the three must be right; a fault of rows has no column."""
    table = "lake/curated/trip_events_v2"
    assert tells(incident(table, "2", "pickup_position_longitude"), NULLS)
    assert not tells(incident(table, "1", "pickup_position_longitude"), NULLS)
    assert not tells(incident(table, "2", "distance_m"), NULLS)
    assert not tells(incident("lake/curated/payment_events_v1", "2", "pickup_position_longitude"), NULLS)
    assert tells(incident("lake/curated/payment_events_v1", "3"), HALVED)


def test_the_report_counts_fraud_and_names_what_is_wrong() -> None:
    """Missed is what was not held up; without a fault an incident is a problem, with one its absence is."""
    radar = RadarAnswers({1: 90, 2: 6, 3: 4}, {"card_testing": (8, 10), "refund_abuse": (1, 4)}, 1)
    quiet = Observed(radar=radar)
    quiet.findings.incidents = [incident("lake/curated/trips", "1")]
    document = build(pb.AuditResponse(exact=True), quiet)
    assert document["radar"] == {"allow": 90, "review": 6, "block": 4, "caught": 9, "missed": 5, "false_alarms": 1}
    assert "an incident without a fault" in document["problems"]
    faulty = build(pb.AuditResponse(exact=True), Observed(radar=radar, fault=NULLS))
    assert "the fault was not detected as what it is" in faulty["problems"]
    assert faulty["dqm"] == {"incidents": 0, "detected_fault": False, "minutes_to_detect": None}


def test_a_trip_file_is_looked_for_among_all_files() -> None:
    """History is files too; the given one must be there with all its rows."""
    file, history = pb.FileAudit(source="file:aa", rows=10), pb.FileAudit(source="file:bb", rows=10)
    problem = "the file is not in the lake"
    given = Observed(file=("file:aa", 10))
    assert problem not in build(pb.AuditResponse(exact=True, files=[history, file]), given)["problems"]
    for files in ([history], [history, pb.FileAudit(source="file:aa", rows=9)]):
        assert problem in build(pb.AuditResponse(exact=True, files=files), given)["problems"]
