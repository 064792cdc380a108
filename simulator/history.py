"""Weeks of history, a day at a time and on whole columns: trips and payments of several cities, as a marketplace would have recorded them.

What belongs to a trip lies within its UTC day, so that a day is a whole: its last requests are a little earlier than they would be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from arterial.api.events.v1.payment_event_pb2 import PaymentEvent
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.tripfiles import ZONE, cells
from simulator.columns import Events, event_ids, money, names, positions, times
from simulator.demand import METRES_PER_DEGREE, hot_spot_positions
from simulator.fraud import Payments, day_of_fraud
from simulator.parameters import CONGESTION, HOURLY_SHARE, MARKETS, WEEKDAY_FACTOR, Market, Parameters

TRIPS, PAYMENTS = "trip_events_v2", "payment_events_v1"
DAY_US = 86_400_000_000
# Labels come days later: within this range of days; assumed, shorter than real disputes so that four weeks show them.
LABEL_DAYS = (1.0, 6.0)
# Honest payments that are charged back too (friendly fraud), and refunds that are none of abuse; assumed.
FRIENDLY_SHARE, REFUND_SHARE = 0.0005, 0.004


class History:
    """Days of all markets, in order. The same seed and first day give the same events."""

    def __init__(self, first: date, seed: int, markets: tuple[Market, ...] = MARKETS) -> None:
        self._day = first
        self._markets = markets
        self._random = np.random.default_rng(seed)
        self._run = f"{seed}-{first:%Y%m%d}"
        self._next = 0
        # Charge-backs that are still to come, in order of their time.
        self._labels: list[Payments] = []

    def days(self, count: int) -> Iterator[dict[str, Events]]:
        """The events of the next days, by topic."""
        for _ in range(count):
            yield self._next_day()

    def _next_day(self) -> dict[str, Events]:
        start_us = int(datetime(self._day.year, self._day.month, self._day.day, tzinfo=UTC).timestamp()) * 1_000_000
        self._day += timedelta(days=1)
        trips, payments = [], []
        for market in self._markets:
            events, paid = self._trips(market, start_us)
            trips.append(events)
            payments.append(paid)
            fraud = day_of_fraud(market.city_id, market.trips_per_day, start_us, self._random, run=f"{self._run}-{self._next}")
            self._next += 1
            payments.append(fraud.payments)
            self._labels.append(self._label(fraud.payments.where(fraud.payments.stage == PaymentEvent.STAGE_AUTHORISED)))
        due = Payments.join(self._labels)
        arrived = due.micros < start_us + DAY_US
        self._labels = [due.where(~arrived)]
        payments.append(due.where(arrived))
        return {TRIPS: Events.join(trips), PAYMENTS: Payments.join(payments).events(self._random)}

    def _label(self, payments: Payments) -> Payments:
        """The charge-backs of payments, days later."""
        delay = self._random.uniform(*LABEL_DAYS, len(payments.micros))
        return payments.staged(PaymentEvent.STAGE_CHARGED_BACK, (delay * DAY_US).astype(np.int64))

    def _trips(self, market: Market, start_us: int) -> tuple[Events, Payments]:
        """A market's trips of a day, and the honest payments for them."""
        random, parameters = self._random, Parameters()
        weekday = datetime.fromtimestamp(start_us / 1e6 + 43_200, UTC).weekday()
        count = int(random.poisson(market.trips_per_day * WEEKDAY_FACTOR[weekday]))
        metres = np.maximum(random.exponential(parameters.mean_trip_m, count), 400.0)
        requested_us, local_hour = _request_times(start_us, count, random)
        wait = random.gamma(4.0, 60.0, count)
        speed = parameters.speed_mps * market.speed_factor / np.array(CONGESTION)[local_hour]
        seconds = np.maximum(metres / speed * random.lognormal(0.0, 0.18, count), 60.0)
        latest = start_us + DAY_US - ((wait + seconds + 30) * 1e6).astype(np.int64)
        requested_us = np.minimum(requested_us, latest)
        picked_us = requested_us + (wait * 1e6).astype(np.int64)
        done_us = picked_us + (seconds * 1e6).astype(np.int64)
        cancelled = random.random(count) < parameters.cancel_share
        ids = np.arange(self._next, self._next + count)
        self._next += count
        riders = (market.riders * random.beta(1.0, 2.0, count)).astype(np.int64)
        when = np.where(cancelled, picked_us, done_us)
        fare = parameters.base_minor + metres.astype(np.int64) * parameters.per_km_minor // 1000
        fare += seconds.astype(np.int64) * parameters.per_minute_minor // 60
        pickup, dropoff = self._legs(market, metres)
        columns = {
            "event_id": event_ids(when, random),
            "event_time": times(when),
            "region": pa.repeat(parameters.region, count),
            "city_id": pa.repeat(pa.scalar(market.city_id, pa.int64()), count),
            "sequence": pa.array(np.where(cancelled, 3, 5)),
            "producer": pa.repeat("history", count),
            "producer_version": pa.repeat("1", count),
            "trip_id": names(f"trip-{self._run}", ids),
            "rider_id": names(f"rider-{market.city_id}", riders),
            "driver_id": names(f"driver-{market.city_id}", random.integers(0, market.drivers, count)),
            "status": pa.array(np.where(cancelled, TripEvent.STATUS_CANCELLED, TripEvent.STATUS_COMPLETED).astype(np.int32)),
            "cancel_reason": pa.array(np.where(cancelled, TripEvent.CANCEL_REASON_RIDER, 0).astype(np.int32)),
            "product": pa.array(np.array(parameters.products)[random.choice(len(parameters.products), count, p=parameters.product_share)]),
            "trip_requested_at": times(requested_us),
            "pickup_position": positions(pickup),
            "pickup_cell": pa.array(cells(pickup[:, 0], pickup[:, 1])),
            "dropoff_position": positions(dropoff),
            "dropoff_cell": pa.array(cells(dropoff[:, 0], dropoff[:, 1])),
            "pickup_time": times(picked_us),
            "route_id": names("route", random.integers(0, 400, count)),
            "promised_eta_seconds": pa.array(wait.astype(np.int32)),
            "distance_m": pa.array(np.where(cancelled, 0, metres).astype(np.int64)),
            "duration_seconds": pa.array(np.where(cancelled, 0, seconds).astype(np.int64)),
            "fare": money(np.where(cancelled, 0, fare)),
        }
        paying = np.flatnonzero(~cancelled)
        paid = Payments.of_riders(
            market.city_id,
            micros=done_us[paying],
            requested_us=requested_us[paying],
            riders=riders[paying],
            amount=fare[paying],
            run=self._run,
            trips=ids[paying],
        )
        return Events(columns, count), self._honest(paid)

    def _legs(self, market: Market, metres: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pickups around the market's hot spots, and dropoffs so many metres away; shape (n, 2) each, degrees."""
        pickup = hot_spot_positions(Parameters(), len(metres), self._random) + np.array([market.north_degrees, market.east_degrees])
        angle = self._random.uniform(0, 2 * np.pi, len(metres))
        offset = np.column_stack([np.sin(angle), np.cos(angle) / np.cos(np.radians(pickup[:, 0]))]) * metres[:, None]
        return np.round(pickup, 6), np.round(pickup + offset / METRES_PER_DEGREE, 6)

    def _honest(self, paid: Payments) -> Payments:
        """Payments are captured; a few are refunded at once, and a few charged back later."""
        captured = paid.staged(PaymentEvent.STAGE_CAPTURED, 2_000_000)
        refunded = paid.where(self._random.random(len(paid.micros)) < REFUND_SHARE).staged(PaymentEvent.STAGE_REFUNDED, 20_000_000)
        self._labels.append(self._label(paid.where(self._random.random(len(paid.micros)) < FRIENDLY_SHARE)))
        return Payments.join([paid, captured, refunded])


def _request_times(start_us: int, count: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Request times within the UTC day by the rhythm of local hours, microseconds, and their local hours; shape (n,) each."""
    starts = [datetime.fromtimestamp(start_us / 1e6 + 3600 * hour, UTC).astimezone(ZoneInfo(ZONE)).hour for hour in range(24)]
    weights = np.array([HOURLY_SHARE[hour] for hour in starts])
    hours = random.choice(24, count, p=weights / weights.sum())
    return start_us + hours * 3_600_000_000 + random.integers(0, 3_600_000_000, count), np.array(starts)[hours]


def join_days(days: list[dict[str, Events]]) -> dict[str, Events]:
    """Days as one, by topic."""
    return {topic: Events.join([day[topic] for day in days]) for topic in (TRIPS, PAYMENTS)}


def of_market(events: Events, city_id: int) -> NDArray[np.bool_]:
    """Which events are of a market; shape (n,)."""
    return np.asarray(pc.equal(events.columns["city_id"], city_id).to_numpy(zero_copy_only=False), bool)


@dataclass(frozen=True)
class Calendar:
    """The days of a story: `history` from `first` on, then the day that arrives during it."""

    first: date
    last: date

    @classmethod
    def ending(cls, now: datetime, days: int, settle_seconds: int) -> "Calendar":
        """So many days, the last of which ended at least `settle_seconds` before now."""
        last = (now.astimezone(UTC) - timedelta(days=1, seconds=settle_seconds)).date()
        return cls(last - timedelta(days=days - 1), last)

    @property
    def days(self) -> int:
        """How many days there are."""
        return (self.last - self.first).days + 1
