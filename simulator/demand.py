"""Where requests come from: the city's own rhythm, or the pickups of a real file."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from chassis.tripfiles import ZONE, TripFile, row_ids
from simulator.parameters import HOURLY_SHARE, WEEKDAY_FACTOR, Burst, Parameters

METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True)
class Requests:
    """Requests of one second: positions in degrees, shape (n, 2), and, of a replayed file, the event ids (n, 16 octets)."""

    positions: NDArray[np.float64]
    event_ids: NDArray[np.uint8] | None = None


class Demand(Protocol):
    """Requests by second."""

    def at(self, second: int, random: np.random.Generator) -> Requests:
        """The requests of a second since 1970."""


def hot_spot_positions(parameters: Parameters, count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Positions around the hot spots; shape (n, 2), degrees."""
    spots = np.array([(spot.latitude, spot.longitude, spot.spread_m) for spot in parameters.hot_spots])
    shares = np.array([spot.share for spot in parameters.hot_spots])
    chosen = spots[random.choice(len(spots), count, p=shares / shares.sum())]
    metres = random.normal(size=(count, 2)) * chosen[:, 2:3]
    degrees = metres / METRES_PER_DEGREE
    degrees[:, 1] /= np.cos(np.radians(chosen[:, 0]))
    return np.asarray(np.round(chosen[:, :2] + degrees, 6), np.float64)


class Rhythm:
    """Demand of the simulated city, by hour of the day and day of the week."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._zone = ZoneInfo(ZONE)

    def at(self, second: int, random: np.random.Generator) -> Requests:
        """A Poisson number of requests around the hot spots."""
        local = datetime.fromtimestamp(second, UTC).astimezone(self._zone)
        rate = self._parameters.requests_per_second * HOURLY_SHARE[local.hour] * 24 * WEEKDAY_FACTOR[local.weekday()]
        return Requests(hot_spot_positions(self._parameters, random.poisson(rate), random))


class Replay:
    """The pickups of a real file, rebased to now at pace 1: its busiest hour, all days laid over one another, again and again."""

    def __init__(self, file: TripFile, start: int, run: int) -> None:
        self._start = start
        chunks = [chunk for chunk in file.chunks() if "pickup_position" in chunk.columns]
        micros = np.concatenate([chunk.columns["event_time"].cast("int64").to_numpy() for chunk in chunks]) if chunks else np.zeros(0)
        valid = np.concatenate([chunk.valid for chunk in chunks]) if chunks else np.zeros(0, bool)
        positions = np.concatenate([np.column_stack([part.to_numpy() for part in c.columns["pickup_position"].flatten()]) for c in chunks])
        seconds = (micros // 1_000_000).astype(np.int64)
        hours = seconds // 3600 % 24
        busiest = np.bincount(hours[valid], minlength=24).argmax()
        rows = np.flatnonzero(valid & (hours == busiest))
        order = rows[np.argsort(seconds[rows] % 3600, kind="stable")]
        self._positions = positions[order]
        self._second_of_hour = seconds[order] % 3600
        ids = row_ids(file.sha256, order, run).to_pylist()
        self._ids = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)

    def at(self, second: int, random: np.random.Generator) -> Requests:
        """The pickups of that second of the hour; on a second round their ids are new, as they are other events."""
        elapsed = second - self._start
        low, high = np.searchsorted(self._second_of_hour, [elapsed % 3600, elapsed % 3600 + 1])
        ids = self._ids[low:high].copy()
        ids[:, 15] ^= elapsed // 3600 % 256
        # The file tells minutes only: its pickups of a minute are spread over it.
        return Requests(self._positions[low:high], ids)


class WithBurst:
    """Demand with an event in it: a concert lets out, and for a while many ask at one place."""

    def __init__(self, demand: Demand, burst: Burst, start: int) -> None:
        self._demand = demand
        self._burst = burst
        self._start = start

    def at(self, second: int, random: np.random.Generator) -> Requests:
        """The usual requests, and those of the burst while it lasts."""
        usual, burst = self._demand.at(second, random), self._burst
        if not burst.after_seconds <= second - self._start < burst.after_seconds + burst.seconds:
            return usual
        spot = Parameters(hot_spots=(burst.spot,))
        extra = hot_spot_positions(spot, random.poisson(burst.requests_per_second), random)
        ids = None
        if usual.event_ids is not None:
            ids = np.concatenate([usual.event_ids, random.integers(0, 256, (len(extra), 16), np.uint8)])
            ids[len(usual.positions) :, 6] = 0x70 | (ids[len(usual.positions) :, 6] & 0x0F)
            ids[len(usual.positions) :, 8] = 0x80 | (ids[len(usual.positions) :, 8] & 0x3F)
        return Requests(np.concatenate([usual.positions, extra]), ids)
