"""Radar."""

import time
import uuid

from arterial.api.events.v1.payment_event_pb2 import PaymentEvent
from arterial.api.radar.v1alpha1 import radar_service_pb2 as radar
from arterial.api.types.v1 import money_pb2
from chassis.errors import Reason
from tests.contract.case import BAD_PAGE, Case


def payment(account: str) -> PaymentEvent:
    """An authorised payment of now."""
    event = PaymentEvent(
        event_id=uuid.uuid4().bytes,
        city_id=1,
        payment_id="payment-1",
        account_id=account,
        instrument_fingerprint="card-1",
        device_fingerprint="device-1",
        amount=money_pb2.Money(amount_minor=1250, currency_code="USD"),
        stage=PaymentEvent.STAGE_AUTHORISED,
    )
    event.event_time.FromMicroseconds(int(time.time() * 1e6))
    return event


CASES = {
    "RadarService/Assess": Case(
        radar.AssessRequest(payment=payment("account-1")), radar.AssessRequest(payment=payment("")), "payment.account_id"
    ),
    "RadarService/GetDecision": Case(
        radar.GetDecisionRequest(payment_event_id=bytes(16)),
        radar.GetDecisionRequest(payment_event_id=b"short"),
        "payment_event_id",
        frozenset({Reason.NOT_FOUND}),
    ),
    "RadarService/ListCases": Case(radar.ListCasesRequest(), radar.ListCasesRequest(page=BAD_PAGE), "page.page_size"),
    "RadarService/ResolveCase": Case(
        radar.ResolveCaseRequest(case_id="none", verdict=radar.ReviewCase.STATE_FRAUD, by="test"),
        radar.ResolveCaseRequest(case_id="none", verdict=radar.ReviewCase.STATE_FRAUD),
        "by",
        frozenset({Reason.NOT_FOUND}),
    ),
}
