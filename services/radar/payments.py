"""Payment events as features see them: from the contract's message, and from the columns of a partial."""

from arterial.api.events.v1.payment_event_pb2 import PaymentEvent
from arterial.api.radar.v1alpha1.radar_partial_pb2 import RadarPartial
from chassis.errors import ArterialError, Reason, Violation
from services.radar.features import AUTHORISED, Payment

ID_BYTES = 16
# As combiners do with events of the log: a clock further ahead cannot be trusted; one such event would push all others out of the windows.
FUTURE_US = 300_000_000


def of_event(event: PaymentEvent, now_us: int) -> Payment:
    """The payment of a request.

    Raises:
        ArterialError: INVALID_REQUEST with a violation per field: no identity or account, a time ahead of the clock, an amount below zero,
            another stage than AUTHORISED (nothing else can be allowed or blocked).
    """
    checks = (
        ("event_id", len(event.event_id) == ID_BYTES, "16 bytes expected"),
        ("event_time", 0 < event.event_time.ToMicroseconds() <= now_us + FUTURE_US, "a time after 1970, not ahead of the clock, expected"),
        ("account_id", bool(event.account_id), "an account expected"),
        ("payment_id", bool(event.payment_id), "a payment expected"),
        ("amount", event.amount.amount_minor >= 0, "no less than zero expected"),
        ("stage", event.stage == AUTHORISED, "STAGE_AUTHORISED expected: other stages are not assessed"),
    )
    broken = [Violation(f"payment.{field}", why) for field, good, why in checks if not good]
    if broken:
        raise ArterialError(Reason.INVALID_REQUEST, "the payment cannot be assessed", violations=broken)
    return Payment(
        event.event_id,
        event.event_time.ToMicroseconds(),
        event.stage,
        event.amount.amount_minor,
        event.account_id,
        event.instrument_fingerprint,
        event.device_fingerprint,
        event.payment_id,
        event.city_id,
    )


def of_partial(partial: RadarPartial) -> list[Payment]:
    """The payments of a partial, in their order; columns have equal lengths."""
    columns = (
        partial.event_ids,
        partial.event_time_us,
        partial.stages,
        partial.amounts_minor,
        partial.account_ids,
        partial.instrument_fingerprints,
        partial.device_fingerprints,
        partial.payment_ids,
        partial.city_ids,
    )
    return [Payment(*row) for row in zip(*columns, strict=True)]
