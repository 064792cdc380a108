"""Training of travel times: trips of the lake to a calibrated model, measured on the newest of them, beside two baselines."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from h3.api import basic_int
from numpy.typing import NDArray

from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Candidate
from chassis.learning.boosting import Settings, fit_quantiles
from chassis.learning.checkpoints import Checkpoints
from chassis.learning.conformal import COVERAGES, MEDIAN, QUANTILES, margins
from chassis.learning.features import names
from chassis.learning.lineage import training_job
from chassis.learning.medians import Medians
from chassis.learning.metrics import coverage, mean_absolute_error, pinball_loss
from chassis.learning.snapshot import TrainingData
from chassis.learning.task import Log, Task
from chassis.lineage import JobDefinition
from services.eta.answers import reference_seconds
from services.eta.legs import Floats, Legs
from services.eta.model import (
    DEPARTURE,
    DESTINATION,
    FEATURES,
    MARGINS,
    MODEL_FILE,
    ORIGIN,
    TravelTimeModel,
    columns_of,
    features,
    log_pace,
)
from services.eta.policy import eta_policy

TRIPS = "lake/curated/trips"
SECONDS = "travel_seconds"
# The only columns that training sees. 5 is TripEvent.STATUS_COMPLETED: no other trip has a travel time.
SQL = f"""
SELECT
    pickup_position_latitude AS {ORIGIN[0]},
    pickup_position_longitude AS {ORIGIN[1]},
    dropoff_position_latitude AS {DESTINATION[0]},
    dropoff_position_longitude AS {DESTINATION[1]},
    toUnixTimestamp64Micro(pickup_time) / 1000000 AS {DEPARTURE},
    duration_seconds AS {SECONDS}
FROM `{TRIPS}`
WHERE status = 5
ORDER BY pickup_time, trip_id
"""
# Shares of the trips, oldest first: fitted, then calibrated on; the newest are what the metrics are of.
FIT_SHARE, CALIBRATE_SHARE = 0.7, 0.15
# Fewer than this leave too few to calibrate and to measure on.
LEAST_TRIPS = 1000
# Shorter or longer trips, and faster ones (250 km/h in a straight line), are records of something else.
LEAST_SECONDS, MOST_SECONDS, MOST_SPEED_MPS = 10.0, 6 * 3600.0, 70.0
# Cells of the baseline: about 5 square kilometres.
BASELINE_RESOLUTION = 7
# A pair seen less often has no median worth the name.
BASELINE_LEAST = 5
SETTINGS = Settings(rounds=120, depth=6, learning_rate=0.12, min_child_weight=30)


@dataclass(frozen=True)
class Trips:
    """Trips in order of departure: legs, and how long they took in seconds, (n,)."""

    legs: Legs
    seconds: Floats

    def where(self, rows: NDArray[np.bool_] | slice) -> "Trips":
        """Some of them."""
        legs = self.legs
        return Trips(Legs(0, legs.origins[rows], legs.destinations[rows], legs.departures[rows]), self.seconds[rows])


def trips_of(rows: pa.Table) -> tuple[Trips, dict[str, int]]:
    """Trips that can be learned from, and how many could not be, by reason: the first that holds counts."""
    columns = {name: _floats(rows, name) for name in (*ORIGIN, *DESTINATION, DEPARTURE, SECONDS)}
    trips = Trips(
        Legs(
            0,
            np.column_stack([columns[name] for name in ORIGIN]),
            np.column_stack([columns[name] for name in DESTINATION]),
            columns[DEPARTURE],
        ),
        columns[SECONDS],
    )
    positions = np.column_stack([trips.legs.origins, trips.legs.destinations])
    absent = ~np.isfinite(np.column_stack([positions, trips.legs.departures, trips.seconds])).all(axis=1)
    with np.errstate(invalid="ignore"):
        off_earth = (np.abs(positions[:, [0, 2]]) > 90).any(axis=1) | (np.abs(positions[:, [1, 3]]) > 180).any(axis=1)
        off_earth |= (positions[:, :2] == 0).all(axis=1) | (positions[:, 2:] == 0).all(axis=1)
        duration = (trips.seconds < LEAST_SECONDS) | (trips.seconds > MOST_SECONDS)
        speed = trips.legs.distance_m() > MOST_SPEED_MPS * trips.seconds
    reasons = {"value absent": absent, "position impossible": off_earth, "duration impossible": duration, "speed impossible": speed}
    good = np.ones(len(trips.seconds), bool)
    left_out = {}
    for reason, bad in reasons.items():
        left_out[reason] = int((good & bad).sum())
        good &= ~bad
    return trips.where(good), left_out


def _floats(rows: pa.Table, name: str) -> Floats:
    return np.asarray(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def fitted(fit: Trips, calibrate: Trips, settings: Settings = SETTINGS, *, checkpoints: Checkpoints | None = None) -> TravelTimeModel:
    """A model of some trips, whose intervals are calibrated on others, later ones."""
    pace = log_pace(fit.seconds, fit.legs.distance_m())
    model = fit_quantiles(features(columns_of(fit.legs)), pace, QUANTILES, settings, checkpoints=checkpoints)
    actual = log_pace(calibrate.seconds, calibrate.legs.distance_m())
    return TravelTimeModel(model, margins(actual, model.predict(features(columns_of(calibrate.legs)))))


def measured(model: TravelTimeModel, test: Trips) -> dict[str, float]:
    """How good the model is on trips that it did not see."""
    predicted = model.predict(test.legs)
    metrics = {
        "mae_seconds": mean_absolute_error(test.seconds, predicted[:, MEDIAN]),
        "pinball_90_seconds": pinball_loss(test.seconds, predicted[:, QUANTILES.index(0.9)], 0.9),
        "test_trips": float(len(test.seconds)),
    }
    for place, percent in enumerate(COVERAGES, start=1):
        metrics[f"coverage_{percent}"] = coverage(test.seconds, predicted[:, MEDIAN - place], predicted[:, MEDIAN + place])
    return metrics


def baseline(seen: Trips, test: Trips) -> float:
    """MAE, seconds, of the median of the same cells of origin and destination, or else of the origin, or else of all trips."""
    origin, destination = _cells(seen.legs.origins), _cells(seen.legs.destinations)
    to_origin, to_destination = _cells(test.legs.origins), _cells(test.legs.destinations)
    both = np.column_stack([np.append(origin, to_origin), np.append(destination, to_destination)])
    pair = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    medians = Medians([pair[: len(origin)], origin], seen.seconds, BASELINE_LEAST)
    return mean_absolute_error(test.seconds, medians.predict([pair[len(origin) :], to_origin]))


def _cells(positions: Floats) -> NDArray[np.int64]:
    found = (basic_int.latlng_to_cell(latitude, longitude, BASELINE_RESOLUTION) for latitude, longitude in positions.tolist())
    return np.fromiter(found, np.int64, len(positions))


def definition() -> JobDefinition:
    """What training reads, and what it makes of it."""
    return training_job("eta.train", "eta", SQL, FEATURES, SECONDS)


async def train(task: Task, log: Log) -> Candidate:
    """The trainer of Model "eta".

    Raises:
        ArterialError: REFUSED if there are too few trips to learn from.
    """
    data = TrainingData(task)
    rows = await data.read(SQL)
    trips, left_out = trips_of(rows)
    log(f"{rows.num_rows} completed trips; left out: " + ", ".join(f"{reason} {count}" for reason, count in left_out.items()))
    if len(trips.seconds) < LEAST_TRIPS:
        raise ArterialError(Reason.REFUSED, f"{len(trips.seconds)} trips are too few to learn from, {LEAST_TRIPS} are needed")
    to_fit, to_calibrate = (int(len(trips.seconds) * share) for share in (FIT_SHARE, FIT_SHARE + CALIBRATE_SHARE))
    kept = Checkpoints(task.models, task.run_id, log)
    model = fitted(trips.where(slice(0, to_fit)), trips.where(slice(to_fit, to_calibrate)), checkpoints=kept)
    seen, test = trips.where(slice(0, to_calibrate)), trips.where(slice(to_calibrate, len(trips.seconds)))
    policy = eta_policy(task.desired)
    metrics = measured(model, test) | {
        "reference_mae_seconds": mean_absolute_error(test.seconds, reference_seconds(test.legs.distance_m(), policy)),
        "median_mae_seconds": baseline(seen, test),
        "left_out_share": 1 - len(trips.seconds) / rows.num_rows,
    }
    metrics["mae_ratio_to_median"] = metrics["mae_seconds"] / metrics["median_mae_seconds"]
    log(", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return Candidate(
        {MODEL_FILE: model.quantiles.encoded()},
        names(FEATURES),
        metrics,
        {MARGINS: list(model.margins), "settings": repr(SETTINGS), "left_out": left_out, "trips": len(trips.seconds)},
        data.snapshots,
    )
