"""Legs: pairs of positions with a departure, as columns. Pure geometry."""

from dataclasses import dataclass

import numpy as np
from h3.api import basic_int
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Mean radius (IUGG), metres.
EARTH_RADIUS_M = 6_371_008.8
# Points looked at along a leg: about one per cell of resolution 8 on a ride of usual length.
POINTS = 8


@dataclass(frozen=True)
class Legs:
    """Legs of one city: `origins` and `destinations` (n, 2), degrees (latitude, longitude); `departures` (n,), seconds since 1970."""

    city_id: int
    origins: Floats
    destinations: Floats
    departures: Floats

    def __len__(self) -> int:
        return len(self.departures)

    def distance_m(self) -> Floats:
        """Great-circle distance of each leg, metres; shape (n,) (haversine formula)."""
        north, south = np.radians(self.origins), np.radians(self.destinations)
        half = np.sin((south - north) / 2) ** 2
        chord = half[:, 0] + np.cos(north[:, 0]) * np.cos(south[:, 0]) * half[:, 1]
        return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(chord, 0.0, 1.0))), np.float64)

    def cells(self, resolution: int) -> NDArray[np.int64]:
        """H3 cells at POINTS points along each leg, evenly spaced, in its order; shape (n, POINTS)."""
        step = self.destinations - self.origins
        step[:, 1] = (step[:, 1] + 180.0) % 360.0 - 180.0
        points = self.origins[:, None, :] + step[:, None, :] * fractions()[None, :, None]
        flat = points.reshape(-1, 2).tolist()
        found = np.fromiter(
            (basic_int.latlng_to_cell(latitude, longitude, resolution) for latitude, longitude in flat), np.int64, len(flat)
        )
        return found.reshape(len(self), POINTS)


def fractions() -> Floats:
    """How far along a leg its points are; shape (POINTS,)."""
    return (np.arange(POINTS) + 0.5) / POINTS
