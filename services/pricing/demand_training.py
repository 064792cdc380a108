"""Training of the demand model: requests of the lake's trips per cell and hour, against the plain mean of the cell's hour of the week."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Candidate
from chassis.learning.boosting import Settings, fit_counts
from chassis.learning.checkpoints import Checkpoints
from chassis.learning.features import Floats, names
from chassis.learning.lineage import training_job
from chassis.learning.metrics import mean_absolute_error, poisson_deviance
from chassis.learning.snapshot import TrainingData
from chassis.learning.task import Log, Task
from chassis.lineage import JobDefinition
from services.pricing.demand import CELL, FEATURES, HOUR, HOURS_PER_WEEK, DemandModel, Ints, features
from services.pricing.policy import surge_policy

TRIPS, REQUESTS = "lake/curated/trips", "requests"
# Days at the end that are measured on: a whole week, so that every hour of the week counts.
TEST_DAYS = 7
LEAST_DAYS = 2 * TEST_DAYS
# 00:00 of Monday, 5 January 1970.
MONDAY_HOUR = 96
SETTINGS = Settings(rounds=250, depth=7, learning_rate=0.15, min_child_weight=4)


def sql(resolution: int) -> str:
    """Requests per city, cell of that resolution (0: the pickup has none) and hour; the lake has one row per trip."""
    return f"""
SELECT
    city_id,
    if(h3IsValid(toUInt64(pickup_cell)), toInt64(h3ToParent(toUInt64(pickup_cell), {resolution})), 0) AS {CELL},
    intDiv(toUnixTimestamp(trip_requested_at), 3600) AS {HOUR},
    count(trip_id) AS {REQUESTS}
FROM `{TRIPS}`
WHERE trip_requested_at IS NOT NULL AND pickup_cell IS NOT NULL
GROUP BY city_id, {CELL}, {HOUR}
"""


@dataclass(frozen=True)
class Counts:
    """Requests (n,) by city, cell and hour (since 1970); what is not there is 0."""

    places: Ints
    hours: Ints
    requests: Floats

    def where(self, rows: NDArray[np.bool_]) -> "Counts":
        """Some of them."""
        return Counts(self.places[rows], self.hours[rows], self.requests[rows])


def counts_of(rows: pa.Table) -> tuple[Counts, float]:
    """Counts that have a cell, places (n, 2) being city and cell, and the share of the requests that have none."""
    columns = {name: rows[name].cast(pa.int64()).to_numpy() for name in ("city_id", CELL, HOUR, REQUESTS)}
    counts = Counts(np.column_stack([columns["city_id"], columns[CELL]]), columns[HOUR], columns[REQUESTS].astype(np.float64))
    placed = columns[CELL] != 0
    return counts.where(placed), float(1 - counts.requests[placed].sum() / max(counts.requests.sum(), 1.0))


@dataclass(frozen=True)
class Weekly:
    """Requests by place and hour of the week, shape (places, 168), and how many such hours there were, (168,)."""

    places: Ints
    requests: Floats
    exposure: Floats

    @classmethod
    def of(cls, counts: Counts, places: Ints, first: date, last: date) -> "Weekly":
        """The counts of the dates, both included, at these places (ascending); others are left out."""
        start, end = (_days(each) * 24 for each in (first, last + timedelta(days=1)))
        both = np.concatenate([places, counts.places])
        number = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
        # Places are distinct: what is at one of them has its number.
        row = np.full(number.max() + 1, -1)
        row[number[: len(places)]] = np.arange(len(places))
        at = row[number[len(places) :]]
        taken = (at >= 0) & (counts.hours >= start) & (counts.hours < end)
        requests = np.zeros((len(places), HOURS_PER_WEEK))
        np.add.at(requests, (at[taken], (counts.hours[taken] - MONDAY_HOUR) % HOURS_PER_WEEK), counts.requests[taken])
        exposure = np.bincount((np.arange(start, end) - MONDAY_HOUR) % HOURS_PER_WEEK, minlength=HOURS_PER_WEEK)
        return cls(places, requests, exposure.astype(np.float64))

    def columns(self) -> dict[str, Ints]:
        """Cell and an hour of each entry, row by row."""
        hours = np.tile(np.arange(HOURS_PER_WEEK) + MONDAY_HOUR, len(self.places))
        return {CELL: np.repeat(self.places[:, 1], HOURS_PER_WEEK), HOUR: hours}


def _days(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def fitted(seen: Weekly, settings: Settings = SETTINGS, *, checkpoints: Checkpoints | None = None) -> DemandModel:
    """A model of these weeks."""
    exposure = np.tile(seen.exposure, len(seen.places))
    columns = {name: column[exposure > 0] for name, column in seen.columns().items()}
    requests = seen.requests.ravel()[exposure > 0]
    counts = fit_counts(features(columns), requests, settings, exposure[exposure > 0], checkpoints=checkpoints)
    return DemandModel(counts, seen.places)


def measured(model: DemandModel, seen: Weekly, test: Weekly) -> dict[str, float]:
    """How good the model is in a week that it did not see, per cell and hour, beside the mean of the cell's hour of the week.

    That mean has one hour of the cell's own mean added, so that an hour without requests so far is not held impossible.
    """
    columns = test.columns()
    predicted = model.predict(columns[CELL], columns[HOUR])
    overall = seen.requests.sum(axis=1, keepdims=True) / seen.exposure.sum()
    mean = ((seen.requests + overall) / (seen.exposure + 1)).ravel()
    actual = test.requests.ravel()
    metrics = {
        "deviance": poisson_deviance(actual, predicted),
        "mean_deviance": poisson_deviance(actual, mean),
        "mae_requests": mean_absolute_error(actual, predicted),
        "mean_mae_requests": mean_absolute_error(actual, mean),
        "cells": float(len(test.places)),
    }
    return metrics | {"deviance_ratio_to_mean": metrics["deviance"] / metrics["mean_deviance"]}


def definition(resolution: int) -> JobDefinition:
    """What training reads, and what it makes of it."""
    return training_job("pricing.train", "demand", sql(resolution), FEATURES, REQUESTS)


async def train(task: Task, log: Log) -> Candidate:
    """The trainer of Model "demand": measured on the last week, after fitting what came before it.

    Raises:
        ArterialError: REFUSED if the window is too short, or there is nothing in it before the last week.
    """
    first, last = task.window(TRIPS)
    data = TrainingData(task)
    counts, without_cell = counts_of(await data.read(sql(surge_policy(task.desired).cell_resolution)))
    begin = max(_days(first), int(counts.hours.min()) // 24) if len(counts.hours) else _days(last)
    first = date(1970, 1, 1) + timedelta(days=begin)
    if (last - first).days + 1 < LEAST_DAYS:
        raise ArterialError(Reason.REFUSED, f"requests begin on {first}: {LEAST_DAYS} days up to {last} are needed")
    split = last - timedelta(days=TEST_DAYS)
    places = np.unique(counts.places[counts.hours < (_days(split) + 1) * 24], axis=0)
    seen, test = Weekly.of(counts, places, first, split), Weekly.of(counts, places, split + timedelta(days=1), last)
    log(f"{counts.requests.sum():.0f} requests in {len(places)} cells from {first} to {last}; without a cell {without_cell:.2%}")
    model = fitted(seen, checkpoints=Checkpoints(task.models, task.run_id, log))
    unseen = 1 - test.requests.sum() / max(counts.requests[counts.hours >= (_days(split) + 1) * 24].sum(), 1.0)
    metrics = measured(model, seen, test) | {"without_cell_share": without_cell, "new_cell_share": float(unseen)}
    log(", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return Candidate(
        model.files(),
        names(FEATURES),
        metrics,
        {"settings": repr(SETTINGS), "first_date": first.isoformat(), "fitted_until": split.isoformat()},
        data.snapshots,
    )
