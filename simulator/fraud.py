"""Payments, honest and not: four kinds of fraudsters leave traces for radar. Who is one stands in a list apart, never in an event."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from arterial.api.events.v1.payment_event_pb2 import PaymentEvent
from simulator.columns import Events, event_ids, money, names, times

SCENARIOS = ("card_testing", "account_takeover", "promotion_abuse", "refund_abuse")
# Share of payments that are fraud: above what card schemes publish for card-not-present trade, so that a day shows all kinds; assumed.
FRAUD_SHARE = 0.012
AUTHORISED, REFUNDED = PaymentEvent.STAGE_AUTHORISED, PaymentEvent.STAGE_REFUNDED
NETWORK = "203.0.113.0/24"


@dataclass(frozen=True)
class Payments:
    """Payment events, one entry each: times in microseconds since 1970, amounts in minor units; identifiers are texts."""

    micros: NDArray[np.int64]
    requested_us: NDArray[np.int64]
    city: NDArray[np.int64]
    amount: NDArray[np.int64]
    stage: NDArray[np.int64]
    payment: NDArray[np.object_]
    account: NDArray[np.object_]
    instrument: NDArray[np.object_]
    device: NDArray[np.object_]
    trip: NDArray[np.object_]

    @classmethod
    def of_riders(
        cls,
        city_id: int,
        *,
        micros: NDArray[np.int64],
        requested_us: NDArray[np.int64],
        riders: NDArray[np.int64],
        amount: NDArray[np.int64],
        run: str,
        trips: NDArray[np.int64],
    ) -> "Payments":
        """Authorised payments of riders, who have one card and one device each."""
        count = len(micros)
        account, card, device = (_texts(f"{kind}-{city_id}", riders) for kind in ("account", "card", "device"))
        payment, trip = _texts(f"payment-{run}", trips), _texts(f"trip-{run}", trips)
        stage = np.full(count, AUTHORISED)
        return cls(micros, requested_us, np.full(count, city_id), amount, stage, payment, account, card, device, trip)

    @classmethod
    def join(cls, parts: Sequence["Payments"]) -> "Payments":
        """One after another."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def where(self, mask: NDArray[np.bool_] | NDArray[np.int64]) -> "Payments":
        """Those of a mask of shape (n,)."""
        return Payments(*(getattr(self, field.name)[mask] for field in fields(self)))

    def staged(self, stage: int, later_us: NDArray[np.int64] | int) -> "Payments":
        """The same payments at another stage, so much later."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        columns |= {"micros": self.micros + later_us, "stage": np.full(len(self.micros), stage)}
        return Payments(**columns)

    def events(self, random: np.random.Generator, producer: str = "history") -> Events:
        """As events of payment_events_v1, in order of time."""
        ordered = self.where(np.argsort(self.micros, kind="stable"))
        count = len(ordered.micros)
        columns = {
            "event_id": event_ids(ordered.micros, random),
            "event_time": times(ordered.micros),
            "region": pa.repeat("us-east", count),
            "city_id": pa.array(ordered.city, pa.int64()),
            "sequence": pa.array(ordered.stage, pa.int64()),
            "producer": pa.repeat(producer, count),
            "producer_version": pa.repeat("1", count),
            "payment_id": _strings(ordered.payment),
            "account_id": _strings(ordered.account),
            "trip_id": _strings(ordered.trip),
            "trip_requested_at": times(ordered.requested_us),
            "instrument_fingerprint": _strings(ordered.instrument),
            "device_fingerprint": _strings(ordered.device),
            "network_prefix": pa.repeat(NETWORK, count),
            "amount": money(ordered.amount),
            "stage": pa.array(ordered.stage.astype(np.int32)),
        }
        return Events(columns, count)


# Account, instrument and device of each payment.
Identity = tuple[NDArray[np.object_], NDArray[np.object_], NDArray[np.object_]]


@dataclass(frozen=True)
class Fraud:
    """Fraudulent payments (refunds included), and the scenario of each payment id."""

    payments: Payments
    scenario_of: dict[str, str]


def day_of_fraud(
    city_id: int, payments_per_day: float, start_us: int, random: np.random.Generator, *, run: str, seconds: int = 86_000
) -> Fraud:
    """A market's fraud within `seconds` from a time on: about FRAUD_SHARE of a day's payments, spread over the four kinds."""
    share = payments_per_day * FRAUD_SHARE / len(SCENARIOS)
    parts: list[Payments] = []
    scenario_of: dict[str, str] = {}
    for scenario, make, size in _KINDS:
        for episode in range(max(1, int(random.poisson(share / size)))):
            begin = start_us + int(random.uniform(0, 0.65) * seconds * 1e6)
            made = make(city_id, begin, random, f"{run}-{scenario}-{episode}", int(0.25 * seconds * 1e6))
            parts.append(made)
            scenario_of |= dict.fromkeys(made.payment.tolist(), scenario)
    return Fraud(Payments.join(parts), scenario_of)


def _episode(city_id: int, micros: NDArray[np.int64], amount: NDArray[np.int64], run: str, who: Identity) -> Payments:
    count = len(micros)
    numbers = np.arange(count)
    payment, trip = _texts(f"payment-{run}", numbers), _texts(f"trip-{run}", numbers)
    stage = np.full(count, AUTHORISED)
    return Payments(micros, micros - 600_000_000, np.full(count, city_id), amount, stage, payment, *who, trip)


def _card_testing(city_id: int, begin: int, random: np.random.Generator, run: str, limit_us: int) -> Payments:
    """Stolen card numbers are tried one after another with small amounts, from one device."""
    count = int(random.integers(10, 25))
    micros = begin + np.sort(random.integers(0, min(1_200_000_000, limit_us), count))
    numbers = np.arange(count)
    who = (_texts(f"account-{run}", numbers // 3), _texts(f"card-{run}", numbers), _same(f"device-{run}", count))
    return _episode(city_id, micros, random.integers(100, 300, count), run, who)


def _account_takeover(city_id: int, begin: int, random: np.random.Generator, run: str, limit_us: int) -> Payments:
    """Somebody else's account, from a device that it never used: a few expensive trips within an hour or so."""
    count = int(random.integers(4, 8))
    micros = begin + np.sort(random.integers(0, min(4_800_000_000, limit_us), count))
    victim = int(random.integers(0, 4000))
    who = (_same(f"account-{city_id}-{victim}", count), _same(f"card-{city_id}-{victim}", count), _same(f"device-{run}", count))
    return _episode(city_id, micros, random.integers(4500, 12_000, count), run, who)


def _promotion_abuse(city_id: int, begin: int, random: np.random.Generator, run: str, limit_us: int) -> Payments:
    """Accounts made for their first-trip discount, on one device and one card."""
    count = int(random.integers(6, 14))
    micros = begin + np.sort(random.integers(0, min(12_000_000_000, limit_us), count))
    who = (_texts(f"account-{run}", np.arange(count)), _same(f"card-{run}", count), _same(f"device-{run}", count))
    return _episode(city_id, micros, random.integers(50, 350, count), run, who)


def _refund_abuse(city_id: int, begin: int, random: np.random.Generator, run: str, limit_us: int) -> Payments:
    """An account that has one trip after another paid back."""
    count = int(random.integers(5, 10))
    micros = begin + np.sort(random.integers(0, min(12_000_000_000, limit_us), count))
    who = (_same(f"account-{run}", count), _same(f"card-{run}", count), _same(f"device-{run}", count))
    paid = _episode(city_id, micros, random.integers(900, 3500, count), run, who)
    return Payments.join([paid, paid.staged(REFUNDED, min(240_000_000, limit_us // 4))])


# Scenario, how it is made, and the mean number of payments of an episode.
_KINDS = (
    ("card_testing", _card_testing, 17),
    ("account_takeover", _account_takeover, 6),
    ("promotion_abuse", _promotion_abuse, 10),
    ("refund_abuse", _refund_abuse, 8),
)


def _texts(prefix: str, numbers: NDArray[np.int64]) -> NDArray[np.object_]:
    return np.asarray(names(prefix, numbers).to_numpy(zero_copy_only=False), object)


def _same(text: str, count: int) -> NDArray[np.object_]:
    return np.full(count, text, object)


def _strings(texts: NDArray[np.object_]) -> pa.Array:
    return pc.fill_null(pa.array(texts, pa.string()), "")


class Fraudsters:
    """Fraud among a city's live payments, published at its time."""

    def __init__(self, fraud: Fraud, random: np.random.Generator) -> None:
        self.scenario_of = fraud.scenario_of
        self._payments = fraud.payments
        self._random = random

    def at(self, second: int) -> Events:
        """The fraudulent payments of a second since 1970."""
        due = self._payments.where(self._payments.micros // 1_000_000 == second)
        return due.events(self._random, producer="simulator") if len(due.micros) else Events({}, 0)
