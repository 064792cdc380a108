"""Travel times of real taxi trips: mean absolute error in seconds on a month that nothing was fitted on, and what the intervals cover.

Baseline: the median of the same pair of zones in the training months; of a pair without trips that of the pair reversed, or else of the
origin. Model and baseline know zones and time only, and are given the same trips. The trips are those of New York's green taxis: January to
March 2022 and January 2023 to learn from (its last two weeks to calibrate on), February 2023 to measure on.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from bench.result import report
from chassis.learning.boosting import Settings
from chassis.learning.conformal import MEDIAN
from chassis.learning.features import Floats
from chassis.learning.medians import Medians
from chassis.learning.metrics import mean_absolute_error
from services.eta.legs import Legs
from services.eta.model import TravelTimeModel
from services.eta.training import Trips, fitted, measured

DATA = Path(__file__).parents[2] / "shared" / "data" / "nyc-green-tlc"
TRAIN, TEST = ("2022-01", "2022-02", "2022-03", "2023-01"), ("2023-02",)
CALIBRATE_FROM = np.datetime64("2023-01-18")
# Shorter trips were not driven, longer ones are meters that nobody turned off.
LEAST_SECONDS, MOST_SECONDS = 60, 3 * 3600
# Zones 264 and 265 stand for unknown.
ZONES = 264
SETTINGS = Settings(rounds=100, depth=6, learning_rate=0.2, threads=2)
CALLS = 500


@dataclass(frozen=True)
class Month:
    """Trips of some months: departures, seconds, zones of origin and destination, (n,); and how many were left out, by reason."""

    departures: NDArray[np.datetime64]
    seconds: Floats
    origins: NDArray[np.int64]
    destinations: NDArray[np.int64]
    left_out: dict[str, int]

    def trips(self, centres: Floats) -> Trips:
        """As the service trains on them: a zone stands for its centre. Times are the city's own, which its traffic keeps, too."""
        departed = self.departures.astype("datetime64[s]").astype(np.float64)
        return Trips(Legs(0, centres[self.origins], centres[self.destinations], departed), self.seconds)


def read(folder: Path, months: Sequence[str], centres: Floats) -> Month:
    """The trips of the months' files that have a time within the month, known zones and a possible duration."""
    columns = ["lpep_pickup_datetime", "lpep_dropoff_datetime", "PULocationID", "DOLocationID"]
    left_out = {"another month": 0, "zone unknown": 0, "duration impossible": 0}
    parts = []
    for month in months:
        rows = pa.parquet.read_table(folder / f"green_tripdata_{month}.parquet", columns=columns)
        begun, ended = (rows[name].to_numpy().astype("datetime64[s]") for name in columns[:2])
        zones = np.column_stack([rows[name].to_numpy().astype(np.int64) for name in columns[2:]])
        seconds = (ended - begun).astype(np.float64)
        known = np.isfinite(centres[np.clip(zones, 0, ZONES), 0]).all(axis=1) & (zones < ZONES).all(axis=1)
        reasons = (begun.astype("datetime64[M]") != np.datetime64(month), ~known, (seconds < LEAST_SECONDS) | (seconds > MOST_SECONDS))
        good = np.ones(len(seconds), bool)
        for name, bad in zip(left_out, reasons, strict=True):
            left_out[name] += int((good & bad).sum())
            good &= ~bad
        parts.append((begun[good], seconds[good], zones[good, 0], zones[good, 1]))
    begun, seconds, origins, destinations = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Month(begun, seconds, origins, destinations, left_out)


def zone_centres(file: Path) -> Floats:
    """Centre (latitude, longitude, degrees) of each zone by its number, shape (ZONES + 1, 2); not a number where there is no polygon."""
    parts: dict[int, list[Floats]] = {}
    for feature in json.loads(file.read_text())["features"]:
        geometry = feature["geometry"]
        polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        parts.setdefault(feature["properties"]["LocationID"], []).extend(_moments(np.array(polygon[0])) for polygon in polygons)
    centres = np.full((ZONES + 1, 2), np.nan)
    for zone, moments in parts.items():
        area, east, north = np.sum(moments, axis=0)
        centres[zone] = north / area, east / area
    return centres


def _moments(ring: Floats) -> Floats:
    """Area and first moments of a polygon, up to a sign that cancels (shoelace formula)."""
    x, y = ring[:, 0], ring[:, 1]
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    return np.array([cross.sum() / 2, ((x[:-1] + x[1:]) * cross).sum() / 6, ((y[:-1] + y[1:]) * cross).sum() / 6])


def baseline(train: Month, test: Month) -> tuple[Floats, float]:
    """The baseline's answers (n,), and the share of them that are of a pair that training has not."""
    pair = train.origins * 1000 + train.destinations
    asked, reverse = test.origins * 1000 + test.destinations, test.destinations * 1000 + test.origins
    medians = Medians([pair, pair, train.origins], train.seconds)
    return medians.predict([asked, reverse, test.origins]), float(1 - np.isin(asked, pair).mean())


def latency_ms(model: TravelTimeModel, trips: Trips) -> float:
    """Median time of a prediction for one leg, as a call has it, milliseconds."""
    found = []
    for row in range(CALLS):
        leg = trips.where(slice(row, row + 1)).legs
        began = time.perf_counter()
        model.predict(leg)
        found.append((time.perf_counter() - began) * 1000)
    return float(np.median(found))


def main() -> None:
    """Fits, calibrates, measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with green_tripdata_*.parquet and taxi_zones.geojson")
    folder = parser.parse_args().data
    if not folder.is_dir():
        sys.exit(
            f"eta_tlc needs New York's green taxi trips, which are not part of the project: {folder} is not there; name one with --data"
        )
    centres = zone_centres(folder / "taxi_zones.geojson")
    train, test = read(folder, TRAIN, centres), read(folder, TEST, centres)
    print(
        f"{len(train.seconds)} trips to learn from, left out {train.left_out}; {len(test.seconds)} to measure on, left out {test.left_out}"
    )
    answers, new_pairs = baseline(train, test)
    began = time.perf_counter()
    trips, late = train.trips(centres), train.departures >= CALIBRATE_FROM
    model = fitted(trips.where(~late), trips.where(late), SETTINGS)
    fit_seconds = time.perf_counter() - began
    measured_on = test.trips(centres)
    metrics = measured(model, measured_on)
    predicted = model.predict(measured_on.legs)
    report(
        "eta_tlc",
        metrics["mae_seconds"],
        "s (mean absolute error, February 2023)",
        baseline=("origin-destination median", mean_absolute_error(test.seconds, answers)),
        coverage_50=metrics["coverage_50"],
        coverage_80=metrics["coverage_80"],
        coverage_95=metrics["coverage_95"],
        width_80_s=float(np.median(predicted[:, MEDIAN + 2] - predicted[:, MEDIAN - 2])),
        new_pairs=new_pairs,
        fit_s=fit_seconds,
        predict_p50_ms=latency_ms(model, measured_on),
    )


if __name__ == "__main__":
    main()
