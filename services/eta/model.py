"""The model of travel times: features of legs, quantiles of the pace, and calibrated intervals. Pure; arrays in, arrays out.

It predicts the logarithm of the pace (seconds per straight metre, with MIN_DISTANCE_M at least), so that its intervals grow with the leg,
and it speaks of typical traffic of the hour: history has no live speeds, so a live ratio is no feature. Where something live is known,
`answers.py` moves the answer by the ratio of live to what the model expects there, so congestion of the hour is never counted twice.

No feature knows the trip: distance driven, duration and fare are known when it is over, positions and departure before it begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chassis.learning.artefact import Artefact
from chassis.learning.boosting import Boosted
from chassis.learning.conformal import intervals
from chassis.learning.features import Feature, Floats, matrix, names
from services.eta.legs import Legs

MODEL_FILE = "quantiles.ubj"
MARGINS = "margins"
# Shorter legs take their time for stopping and turning, not for metres.
MIN_DISTANCE_M = 100.0
METRES_PER_DEGREE = 111_195.0
SECONDS_PER_DAY = 86_400.0


ORIGIN = ("origin_latitude", "origin_longitude")
DESTINATION = ("destination_latitude", "destination_longitude")
DEPARTURE = "departed_seconds"


def _copied(column: Floats) -> Floats:
    return column


def _north_m(origin: Floats, destination: Floats) -> Floats:
    return (destination - origin) * METRES_PER_DEGREE


def _east_m(origin_latitude: Floats, origin: Floats, destination: Floats) -> Floats:
    return _wrapped(destination - origin) * METRES_PER_DEGREE * np.cos(np.radians(origin_latitude))


def _wrapped(degrees: Floats) -> Floats:
    return np.asarray((degrees + 180.0) % 360.0 - 180.0, np.float64)


def _hour_of_day(departed: Floats) -> Floats:
    return np.asarray(departed % SECONDS_PER_DAY / 3600.0, np.float64)


def _day_of_week(departed: Floats) -> Floats:
    # 1 January 1970 was a Thursday; Monday is 0.
    return np.asarray((departed // SECONDS_PER_DAY + 3) % 7, np.float64)


def _distance_m(*positions: Floats) -> Floats:
    legs = Legs(0, np.column_stack(positions[:2]), np.column_stack(positions[2:]), np.zeros(len(positions[0])))
    return legs.distance_m()


FEATURES = (
    Feature("distance_m", (*ORIGIN, *DESTINATION), _distance_m),
    Feature("north_m", (ORIGIN[0], DESTINATION[0]), _north_m),
    Feature("east_m", (*ORIGIN, DESTINATION[1]), _east_m),
    *(Feature(name, (name,), _copied) for name in (*ORIGIN, *DESTINATION)),
    Feature("hour_of_day", (DEPARTURE,), _hour_of_day),
    Feature("day_of_week", (DEPARTURE,), _day_of_week),
)


def columns_of(legs: Legs) -> dict[str, Floats]:
    """The columns that features are computed from; shape (n,) each."""
    return {
        ORIGIN[0]: legs.origins[:, 0],
        ORIGIN[1]: legs.origins[:, 1],
        DESTINATION[0]: legs.destinations[:, 0],
        DESTINATION[1]: legs.destinations[:, 1],
        DEPARTURE: legs.departures,
    }


def features(columns: Mapping[str, Floats]) -> Floats:
    """Columns (n,) to features; shape (n, features)."""
    return matrix(FEATURES, columns)


def log_pace(seconds: Floats, distance_m: Floats) -> Floats:
    """What the model learns; shape (n,)."""
    return np.asarray(np.log(seconds / np.maximum(distance_m, MIN_DISTANCE_M)), np.float64)


@dataclass(frozen=True)
class TravelTimeModel:
    """A trained version: quantiles of the logarithm of the pace, and the margins that calibrate its intervals."""

    quantiles: Boosted
    margins: tuple[float, ...]

    def predict(self, legs: Legs) -> Floats:
        """Quantiles (`conformal.QUANTILES`) of travel time, seconds; shape (n, 7), ascending. Runs in any thread."""
        found = intervals(self.quantiles.predict(features(columns_of(legs))), self.margins)
        logs = np.column_stack([found.low[:, ::-1], found.median, found.high])
        return np.asarray(np.exp(logs) * np.maximum(legs.distance_m(), MIN_DISTANCE_M)[:, None], np.float64)


def from_artefact(artefact: Artefact) -> TravelTimeModel:
    """A version as it was saved.

    Raises:
        ValueError: it was trained on other features than this program computes, or its file is no model.
    """
    if artefact.candidate.features != names(FEATURES):
        raise ValueError(f"{artefact.path} has features {artefact.candidate.features}, this program computes {names(FEATURES)}")
    model = TravelTimeModel(Boosted.decoded(artefact.files[MODEL_FILE]), tuple(artefact.parameters[MARGINS]))
    # The first prediction builds what later ones use; a model that cannot answer is found here.
    answer = model.predict(Legs(0, np.array([[40.75, -73.98]]), np.array([[40.70, -73.95]]), np.array([0.0])))
    if not np.isfinite(answer).all():
        raise ValueError(f"{artefact.path} answers {answer[0]}")
    return model
