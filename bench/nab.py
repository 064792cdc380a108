"""One-step deviations against a rolling z-score, on labelled real series (part of the Numenta Anomaly Benchmark): F1 over labelled windows.

Series are hourly means with a season of a day: about as short, in seasons, as a few weeks of daily statistics. An alert is a run of flagged
hours; it is right if it touches a labelled window. Each detector is given its best threshold, so that neither wins by its setting.
"""

import csv
import json
import os
import sys
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.result import report
from services.dqm.deviations import MIN_RELATIVE_NOISE, robust
from services.dqm.forecast import forecast

DATA = Path(os.environ.get("ARTERIAL_NAB", "../shared/data/nab"))
HOUR, SEASON = 3600, 24
# Hours that both detectors learn from before they may flag, and the window of the z-score.
WARM_UP = 2 * SEASON
THRESHOLDS = np.geomspace(2, 40, 40)
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def main() -> None:
    """F1 of both detectors; precision and recall beside it."""
    if not (DATA / "combined_windows.json").exists():
        sys.exit(f"no labelled series in {DATA}: set ARTERIAL_NAB to a folder with combined_windows.json and its series")
    windows = json.loads((DATA / "combined_windows.json").read_text())
    series = [hourly(DATA / name, windows[name]) for name in sorted(windows) if (DATA / name).exists()]
    values, labels = (_padded([part[index] for part in series]) for index in (0, 1))
    ours = best(np.abs(deviations(values)), labels > 0)
    plain = best(np.abs(z_scores(values)), labels > 0)
    beside = {"precision": ours[1], "recall": ours[2], "threshold": ours[3], "z_precision": plain[1], "z_recall": plain[2]}
    report("nab", ours[0], "F1", baseline=("rolling z-score", plain[0]), series=float(len(series)), **beside)


def hourly(path: Path, windows: list[list[str]]) -> tuple[Floats, Floats]:
    """Hourly means of a file, NaN where an hour is missing, and the number of the window that each hour lies in (0 for none)."""
    with path.open() as file:
        rows = [(datetime.fromisoformat(row["timestamp"] + "+00:00").timestamp(), float(row["value"])) for row in csv.DictReader(file)]
    times, values = np.array(rows).T
    hours = (times // HOUR - times[0] // HOUR).astype(int)
    count = np.bincount(hours)
    means = np.where(count > 0, np.bincount(hours, values) / np.maximum(count, 1), np.nan)
    labels = np.zeros(len(means))
    for number, (first, last) in enumerate(windows, 1):
        start, end = ((datetime.fromisoformat(text + "+00:00").timestamp() - times[0] // HOUR * HOUR) / HOUR for text in (first, last))
        labels[int(start) : int(end) + 1] = number
    return means, labels


def _padded(parts: list[Floats]) -> Floats:
    """Series of different lengths as one matrix (S, T), NaN at the end."""
    padded = np.full((len(parts), max(len(part) for part in parts)), np.nan)
    for row, part in enumerate(parts):
        padded[row, : len(part)] = part
    return padded


def deviations(values: Floats) -> Floats:
    """Each hour's distance from its forecast, in robust standard deviations of the errors before it; shape (S, T)."""
    errors = forecast(values, SEASON).errors
    told = np.full(values.shape, np.nan)
    for hour in range(WARM_UP, values.shape[1]):
        floor = MIN_RELATIVE_NOISE * np.abs(_quiet(np.nanmedian, values[:, :hour])) + 1e-9
        told[:, hour] = errors[:, hour] / np.fmax(robust(errors[:, :hour]), floor)
    return told


def z_scores(values: Floats) -> Floats:
    """Each hour's distance from the mean of the hours before it, in their standard deviations; shape (S, T)."""
    told = np.full(values.shape, np.nan)
    for hour in range(WARM_UP, values.shape[1]):
        before = values[:, hour - WARM_UP : hour]
        told[:, hour] = (values[:, hour] - _quiet(np.nanmean, before)) / (_quiet(np.nanstd, before) + 1e-9)
    return told


def best(distance: Floats, labelled: Flags) -> tuple[float, float, float, float]:
    """F1, precision, recall and threshold of the best threshold."""
    return max((*_scores(np.nan_to_num(distance) > threshold, labelled), float(threshold)) for threshold in THRESHOLDS)


def _scores(flags: Flags, labelled: Flags) -> tuple[float, float, float]:
    right, alerts = _runs_that_touch(flags, labelled)
    hit, windows = _runs_that_touch(labelled, flags)
    precision, recall = right / max(alerts, 1), hit / max(windows, 1)
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def _runs_that_touch(runs: Flags, others: Flags) -> tuple[int, int]:
    """How many runs of true hours touch a true hour of the others, and how many runs there are."""
    touching = total = 0
    for row, other in zip(runs, others, strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(int)))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            touching, total = touching + bool(other[start:end].any()), total + 1
    return touching, total


def _quiet(reduce: object, values: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(reduce(values, axis=1))  # type: ignore[operator]


if __name__ == "__main__":
    main()
