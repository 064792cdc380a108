"""Ingestion."""

import uuid

from arterial.api.events.v1 import trip_event_pb2
from arterial.api.ingestion.v1 import ingestion_service_pb2 as ingestion
from tests.contract.case import BAD_PAGE, LONG, Case


def trip_event() -> bytes:
    """A valid trip event, serialised."""
    event = trip_event_pb2.TripEvent(event_id=uuid.uuid4().bytes, city_id=1, trip_id="contract", producer="contract")
    event.event_time.GetCurrentTime()
    event.trip_requested_at.GetCurrentTime()
    return event.SerializeToString()


CASES = {
    "IngestionService/Publish": Case(
        ingestion.PublishRequest(frame_id=1, topic="trip_events_v2", records=[trip_event()]),
        ingestion.PublishRequest(records=[b"x"]),
        "topic",
    ),
    "IngestionService/GetPipelineStatus": Case(
        ingestion.GetPipelineStatusRequest(), ingestion.GetPipelineStatusRequest(topic=LONG), "topic"
    ),
    "IngestionService/ListLag": Case(ingestion.ListLagRequest(), ingestion.ListLagRequest(page=BAD_PAGE), "page.page_size"),
    "IngestionService/Audit": Case(
        ingestion.AuditRequest(topics=["app_telemetry_v1"]), ingestion.AuditRequest(ledger_topic=LONG), "ledger_topic"
    ),
    "IngestionService/ListDeadLetters": Case(
        ingestion.ListDeadLettersRequest(), ingestion.ListDeadLettersRequest(page=BAD_PAGE), "page.page_size"
    ),
}
