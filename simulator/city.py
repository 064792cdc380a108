"""A city, second by second: riders ask, drivers drive, accept, carry; everything happens on whole columns."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from arterial.api.events.v1.gps_ping_pb2 import GpsPing
from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from arterial.api.events.v1.payment_event_pb2 import PaymentEvent
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.tripfiles import ZONE, cells
from simulator.columns import Events, event_ids, money, names, positions, times
from simulator.demand import METRES_PER_DEGREE, Demand, Requests, hot_spot_positions
from simulator.fraud import Fraudsters
from simulator.parameters import CONGESTION, Parameters

AVAILABLE, TO_PICKUP, ON_TRIP = GpsPing.DRIVER_STATE_AVAILABLE, GpsPing.DRIVER_STATE_TO_PICKUP, GpsPing.DRIVER_STATE_ON_TRIP


@dataclass
class Fleet:
    """One entry per driver. Positions in degrees, shape (n, 2); `remaining` seconds of the leg under way."""

    position: NDArray[np.float64]
    state: NDArray[np.int32]
    step: NDArray[np.float64]
    remaining: NDArray[np.int64]
    trip: NDArray[np.int64]
    sequence: NDArray[np.int64]


@dataclass
class Trips:
    """Trips under way, one entry per driver: what their later events repeat."""

    requested_us: NDArray[np.int64]
    pickup: NDArray[np.float64]
    dropoff: NDArray[np.float64]
    started_us: NDArray[np.int64]
    seconds: NDArray[np.int64]
    metres: NDArray[np.int64]
    promised: NDArray[np.int64]
    product: NDArray[np.int64]


class City:
    """The simulation. The same seed, start and demand give the same events."""

    def __init__(self, parameters: Parameters, demand: Demand, seed: int, run: str = "", *, fraudsters: Fraudsters | None = None) -> None:
        self._fraudsters = fraudsters
        self._parameters = parameters
        self._demand = demand
        self._random = np.random.default_rng(seed)
        self._run = run or f"{seed}"
        count = parameters.drivers
        self._fleet = Fleet(
            hot_spot_positions(parameters, count, self._random),
            np.full(count, AVAILABLE, np.int32),
            np.zeros((count, 2)),
            np.zeros(count, np.int64),
            np.full(count, -1, np.int64),
            np.zeros(count, np.int64),
        )
        zeros = np.zeros(count, np.int64)
        self._trips = Trips(
            zeros.copy(), np.zeros((count, 2)), np.zeros((count, 2)), zeros.copy(), zeros.copy(), zeros.copy(), zeros.copy(), zeros.copy()
        )
        self._next_trip = 0
        self._started = False

    def second(self, second: int) -> dict[str, Events]:
        """The events of a second since 1970, by topic. Call it with consecutive seconds."""
        now_us = second * 1_000_000
        trips: list[Events] = []
        market: list[Events] = []
        payments: list[Events] = []
        if not self._started:
            self._started = True
            market.append(self._drivers(np.arange(self._parameters.drivers), MarketplaceEvent.KIND_DRIVER_ONLINE, now_us))
        trips += self._finish_legs(now_us, payments)
        requests = self._demand.at(second, self._random)
        if len(requests.positions):
            trips += self._request(requests, now_us, market)
        browsing = self._browse(len(requests.positions), now_us)
        market.extend(browsing[:-1])
        due = np.flatnonzero((np.arange(self._parameters.drivers) + second) % self._parameters.heartbeat_seconds == 0)
        market.append(self._drivers(due[self._fleet.state[due] == AVAILABLE], MarketplaceEvent.KIND_DRIVER_AVAILABLE, now_us))
        if self._fraudsters is not None:
            payments.append(self._fraudsters.at(second))
        found = {
            "trip_events_v2": trips,
            "payment_events_v1": payments,
            "marketplace_events_v1": market,
            "gps_pings_v1": [self._pings(second, now_us)],
            "app_telemetry_v1": [browsing[-1]],
        }
        return {topic: joined for topic, parts in found.items() if (joined := Events.join(parts)).count}

    def _common(self, count: int, now_us: int, sequence: NDArray[np.int64]) -> dict[str, pa.Array]:
        when = now_us + np.sort(self._random.integers(0, 1_000_000, count))
        return {
            "event_id": event_ids(when, self._random),
            "event_time": times(when),
            "region": pa.repeat(self._parameters.region, count),
            "city_id": pa.repeat(pa.scalar(self._parameters.city_id, pa.int64()), count),
            "sequence": pa.array(sequence),
            "producer": pa.repeat("simulator", count),
            "producer_version": pa.repeat("1", count),
        }

    def _browse(self, requests: int, now_us: int) -> list[Events]:
        """Riders who open the app and look at prices, more of them than ask; and what their apps observe."""
        parameters = self._parameters
        events = []
        for kind, rate in (
            (MarketplaceEvent.KIND_SESSION_OPENED, parameters.sessions_per_request),
            (MarketplaceEvent.KIND_QUOTE_SHOWN, parameters.quotes_per_request),
        ):
            count = int(self._random.poisson(requests * rate))
            where = hot_spot_positions(parameters, count, self._random)
            riders = self._random.integers(0, 1_000_000, count)
            events.append(self._market(kind, where, names("rider", riders), now_us))
        sessions = events[0].count
        telemetry = self._common(sessions, now_us, np.zeros(sessions, np.int64)) | {
            "session_id": names(f"session-{now_us}", np.arange(sessions)),
            "name": pa.repeat("screen_view", sessions),
            "screen": pa.repeat("home", sessions),
            "platform": pa.array(np.array(["android", "ios"])[self._random.integers(0, 2, sessions)]),
            "app_version": pa.repeat("4.2.0", sessions),
            "duration_ms": pa.array(self._random.gamma(2.0, 120.0, sessions).astype(np.int64)),
            "failed": pa.array(self._random.random(sessions) < parameters.failed_share),
        }
        return [*events, Events(telemetry, sessions)]

    def _market(self, kind: int, where: NDArray[np.float64], actors: pa.Array, now_us: int) -> Events:
        count = len(where)
        columns = self._common(count, now_us, np.full(count, now_us, np.int64))
        columns |= {
            "actor_id": actors,
            "kind": pa.repeat(pa.scalar(kind, pa.int32()), count),
            "position": positions(where),
            "cell": pa.array(cells(where[:, 0], where[:, 1])) if count else pa.array([], pa.int64()),
        }
        return Events(columns, count)

    def _drivers(self, drivers: NDArray[np.int64], kind: int, now_us: int) -> Events:
        return self._market(kind, self._fleet.position[drivers], names("driver", drivers), now_us)

    def _request(self, requests: Requests, now_us: int, market: list[Events]) -> list[Events]:
        """New trips: matched with the nearest of some free drivers, or cancelled because there is none."""
        count, parameters = len(requests.positions), self._parameters
        ids = np.arange(self._next_trip, self._next_trip + count)
        self._next_trip += count
        market.append(self._market(MarketplaceEvent.KIND_REQUEST, requests.positions, names("rider", ids), now_us))
        metres = np.maximum(self._random.exponential(parameters.mean_trip_m, count), 400.0)
        angle = self._random.uniform(0, 2 * np.pi, count)
        offset = np.column_stack([np.sin(angle), np.cos(angle) / np.cos(np.radians(requests.positions[:, 0]))]) * metres[:, None]
        dropoff = np.round(requests.positions + offset / METRES_PER_DEGREE, 6)
        product = self._random.choice(len(parameters.products), count, p=parameters.product_share)
        drivers, distance = self._match(requests.positions)
        requested = self._trip_events(
            TripEvent.STATUS_REQUESTED, ids, np.full(count, -1), now_us=now_us, requested_us=np.full(count, now_us), sequence=1
        )
        requested |= {
            "pickup_position": positions(requests.positions),
            "pickup_cell": pa.array(cells(requests.positions[:, 0], requests.positions[:, 1])),
            "dropoff_position": positions(dropoff),
            "dropoff_cell": pa.array(cells(dropoff[:, 0], dropoff[:, 1])),
            "product": pa.array(np.array(parameters.products)[product]),
        }
        if requests.event_ids is not None:
            requested["event_id"] = pa.array([row.tobytes() for row in requests.event_ids], pa.binary())
        matched = drivers >= 0
        events = [Events(requested, count)]
        if matched.any():
            self._accept(drivers[matched], ids[matched], distance[matched], now_us)
            trips, chosen = self._trips, drivers[matched]
            trips.pickup[chosen], trips.dropoff[chosen] = requests.positions[matched], dropoff[matched]
            trips.metres[chosen] = metres[matched].astype(np.int64)
            trips.seconds[chosen] = np.maximum(metres[matched] / self._speed_mps(now_us), 60).astype(np.int64)
            trips.product[chosen] = product[matched]
            self._aim(chosen, trips.pickup[chosen])
            events.append(self._of_drivers(TripEvent.STATUS_ACCEPTED, chosen, now_us, 2))
        if not matched.all():
            lost = np.flatnonzero(~matched)
            cancelled = self._trip_events(
                TripEvent.STATUS_CANCELLED,
                ids[lost],
                np.full(len(lost), -1),
                now_us=now_us,
                requested_us=np.full(len(lost), now_us),
                sequence=2,
            )
            cancelled["cancel_reason"] = pa.repeat(pa.scalar(TripEvent.CANCEL_REASON_NO_DRIVER, pa.int32()), len(lost))
            cancelled["pickup_position"] = positions(requests.positions[lost])
            events.append(Events(cancelled, len(lost)))
        return events

    def _match(self, where: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The driver of each request, -1 for none, and the distance in metres. A driver chosen twice goes to the first."""
        free = np.flatnonzero(self._fleet.state == AVAILABLE)
        chosen, distance = np.full(len(where), -1, np.int64), np.zeros(len(where))
        if not len(free):
            return chosen, distance
        sample = free[self._random.integers(0, len(free), (len(where), min(self._parameters.candidates, len(free))))]
        delta = (self._fleet.position[sample] - where[:, None, :]) * METRES_PER_DEGREE
        delta[..., 1] *= np.cos(np.radians(where[:, None, 0]))
        metres = np.hypot(delta[..., 0], delta[..., 1])
        best = metres.argmin(axis=1)
        rows = np.arange(len(where))
        drivers, distance = sample[rows, best], metres[rows, best]
        _, first = np.unique(drivers, return_index=True)
        usable = np.zeros(len(where), bool)
        usable[first] = True
        usable &= distance <= self._parameters.max_pickup_m
        chosen[usable] = drivers[usable]
        return chosen, distance

    def _speed_mps(self, now_us: int) -> float:
        """How fast traffic moves at this hour."""
        local = datetime.fromtimestamp(now_us / 1e6, UTC).astimezone(ZoneInfo(ZONE))
        return self._parameters.speed_mps / CONGESTION[local.hour]

    def _accept(self, drivers: NDArray[np.int64], ids: NDArray[np.int64], metres: NDArray[np.float64], now_us: int) -> None:
        seconds = np.maximum(metres / self._speed_mps(now_us), 20).astype(np.int64)
        self._fleet.state[drivers] = TO_PICKUP
        self._fleet.trip[drivers] = ids
        self._fleet.remaining[drivers] = seconds
        self._trips.requested_us[drivers] = now_us
        self._trips.promised[drivers] = seconds

    def _aim(self, drivers: NDArray[np.int64], target: NDArray[np.float64]) -> None:
        remaining = np.maximum(self._fleet.remaining[drivers], 1)[:, None]
        self._fleet.step[drivers] = (target - self._fleet.position[drivers]) / remaining

    def _finish_legs(self, now_us: int, payments: list[Events]) -> list[Events]:
        """Drives one second; whoever arrives starts or completes the trip."""
        fleet, trips = self._fleet, self._trips
        moving = fleet.state != AVAILABLE
        fleet.position[moving] += fleet.step[moving]
        fleet.remaining[moving] -= 1
        arrived = moving & (fleet.remaining <= 0)
        picked = np.flatnonzero(arrived & (fleet.state == TO_PICKUP))
        done = np.flatnonzero(arrived & (fleet.state == ON_TRIP))
        events = []
        if len(picked):
            fails = self._random.random(len(picked)) < self._parameters.cancel_share
            events += self._start(picked[~fails], now_us) + self._cancel(picked[fails], now_us)
        if len(done):
            trips.started_us[done] = now_us - trips.seconds[done] * 1_000_000
            completed = self._of_drivers(TripEvent.STATUS_COMPLETED, done, now_us, 5)
            fare = self._fare(done)
            completed.columns["fare"] = money(fare)
            completed.columns["pickup_time"] = times(trips.started_us[done])
            completed.columns["distance_m"] = pa.array(trips.metres[done])
            completed.columns["duration_seconds"] = pa.array(trips.seconds[done])
            events.append(completed)
            payments += [
                self._payments(done, fare, stage, now_us) for stage in (PaymentEvent.STAGE_AUTHORISED, PaymentEvent.STAGE_CAPTURED)
            ]
            self._free(done)
        return events

    def _start(self, drivers: NDArray[np.int64], now_us: int) -> list[Events]:
        if not len(drivers):
            return []
        self._fleet.state[drivers] = ON_TRIP
        self._fleet.remaining[drivers] = self._trips.seconds[drivers]
        self._aim(drivers, self._trips.dropoff[drivers])
        return [
            self._of_drivers(TripEvent.STATUS_ARRIVED, drivers, now_us, 3),
            self._of_drivers(TripEvent.STATUS_STARTED, drivers, now_us, 4),
        ]

    def _cancel(self, drivers: NDArray[np.int64], now_us: int) -> list[Events]:
        if not len(drivers):
            return []
        cancelled = self._of_drivers(TripEvent.STATUS_CANCELLED, drivers, now_us, 3)
        cancelled.columns["cancel_reason"] = pa.repeat(pa.scalar(TripEvent.CANCEL_REASON_RIDER, pa.int32()), len(drivers))
        self._free(drivers)
        return [cancelled]

    def _free(self, drivers: NDArray[np.int64]) -> None:
        self._fleet.state[drivers] = AVAILABLE
        self._fleet.trip[drivers] = -1
        self._fleet.step[drivers] = 0.0

    def _fare(self, drivers: NDArray[np.int64]) -> NDArray[np.int64]:
        parameters, trips = self._parameters, self._trips
        metered = trips.metres[drivers] * parameters.per_km_minor // 1000 + trips.seconds[drivers] * parameters.per_minute_minor // 60
        return np.asarray(parameters.base_minor + metered, np.int64)

    def _trip_events(
        self,
        status: int,
        ids: NDArray[np.int64],
        drivers: NDArray[np.int64],
        *,
        now_us: int,
        requested_us: NDArray[np.int64],
        sequence: int,
    ) -> dict[str, pa.Array]:
        count = len(ids)
        trip_ids = names(f"trip-{self._run}", ids)
        driver_ids = names("driver", drivers) if count and drivers[0] >= 0 else pa.repeat("", count)
        return self._common(count, now_us, np.full(count, sequence, np.int64)) | {
            "trip_id": trip_ids,
            "rider_id": names("rider", ids),
            "driver_id": driver_ids,
            "status": pa.repeat(pa.scalar(status, pa.int32()), count),
            "trip_requested_at": times(requested_us),
            "route_id": names("route", ids),
        }

    def _of_drivers(self, status: int, drivers: NDArray[np.int64], now_us: int, sequence: int) -> Events:
        trips, chosen = self._trips, drivers
        columns = self._trip_events(
            status, self._fleet.trip[chosen], chosen, now_us=now_us, requested_us=trips.requested_us[chosen], sequence=sequence
        )
        columns |= {
            "pickup_position": positions(trips.pickup[chosen]),
            "pickup_cell": pa.array(cells(trips.pickup[chosen, 0], trips.pickup[chosen, 1])),
            "dropoff_position": positions(trips.dropoff[chosen]),
            "dropoff_cell": pa.array(cells(trips.dropoff[chosen, 0], trips.dropoff[chosen, 1])),
            "promised_eta_seconds": pa.array(trips.promised[chosen].astype(np.int32)),
            "product": pa.array(np.array(self._parameters.products)[trips.product[chosen]]),
        }
        return Events(columns, len(chosen))

    def _payments(self, drivers: NDArray[np.int64], fare: NDArray[np.int64], stage: int, now_us: int) -> Events:
        count, ids = len(drivers), self._fleet.trip[drivers]
        accounts = ids % 50_000
        columns = self._common(count, now_us, np.full(count, stage, np.int64)) | {
            "payment_id": names(f"payment-{self._run}", ids),
            "account_id": names("account", accounts),
            "trip_id": names(f"trip-{self._run}", ids),
            "trip_requested_at": times(self._trips.requested_us[drivers]),
            "instrument_fingerprint": names("card", accounts),
            "device_fingerprint": names("device", accounts),
            "network_prefix": pa.repeat("203.0.113.0/24", count),
            "amount": money(fare),
            "stage": pa.repeat(pa.scalar(stage, pa.int32()), count),
        }
        return Events(columns, count)

    def _pings(self, second: int, now_us: int) -> Events:
        fleet = self._fleet
        due = np.flatnonzero((np.arange(self._parameters.drivers) + second) % self._parameters.gps_interval_seconds == 0)
        fleet.sequence[due] += 1
        where = fleet.position[due]
        metres = fleet.step[due] * METRES_PER_DEGREE
        speed = np.hypot(metres[:, 0], metres[:, 1] * np.cos(np.radians(where[:, 0])))
        trip = fleet.trip[due]
        on_trip = names(f"trip-{self._run}", np.maximum(trip, 0))
        columns = self._common(len(due), now_us, fleet.sequence[due]) | {
            "driver_id": names("driver", due),
            "trip_id": pa.array(np.where(trip >= 0, np.asarray(on_trip), "")),
            "position": positions(where),
            "cell": pa.array(cells(where[:, 0], where[:, 1])) if len(due) else pa.array([], pa.int64()),
            "speed_mps": pa.array(speed),
            "heading_degrees": pa.array(np.degrees(np.arctan2(fleet.step[due, 1], fleet.step[due, 0])) % 360),
            "accuracy_m": pa.array(self._random.gamma(3.0, 2.0, len(due))),
            "driver_state": pa.array(fleet.state[due]),
        }
        return Events(columns, len(due))
