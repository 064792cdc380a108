"""The demand model: requests that a cell sees in an hour, by place and hour of the week. Pure; arrays in, arrays out.

Counts per cell and hour of the week are Poisson with as many hours of exposure as the window of dates has of that hour: the likelihood of
all hours one by one, from a table that is many times smaller.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from h3.api import basic_int
from numpy.typing import NDArray

from chassis.learning.artefact import Artefact
from chassis.learning.boosting import Boosted
from chassis.learning.features import Feature, Floats, matrix, names

MODEL_FILE, CELLS_FILE = "counts.ubj", "cells.npy"
HOURS_PER_WEEK = 168


Ints = NDArray[np.int64]
# H3 cell; hours since 1970, UTC.
CELL, HOUR = "cell", "hour"


def _positions(cells: Ints, axis: int) -> Floats:
    found, place = np.unique(cells, return_inverse=True)
    centres = np.array([basic_int.cell_to_latlng(cell) for cell in found.tolist()], np.float64).reshape(-1, 2)
    return np.asarray(centres[place.reshape(-1), axis], np.float64)


FEATURES = (
    Feature("cell_latitude", (CELL,), lambda cells: _positions(cells, 0)),
    Feature("cell_longitude", (CELL,), lambda cells: _positions(cells, 1)),
    # 1 January 1970 was a Thursday; Monday is 0.
    Feature("hour_of_day", (HOUR,), lambda hours: np.asarray(hours % 24, np.float64)),
    Feature("day_of_week", (HOUR,), lambda hours: np.asarray((hours // 24 + 3) % 7, np.float64)),
)


def features(columns: Mapping[str, Ints]) -> Floats:
    """Columns (n,) to features; shape (n, features)."""
    return matrix(FEATURES, columns)


@dataclass(frozen=True)
class DemandModel:
    """A trained version, and the (city, cell) pairs that it was trained on, ascending, shape (m, 2): it knows nothing of others."""

    counts: Boosted
    cells: Ints

    def knows(self, city_id: int, cell: int) -> bool:
        """Whether training saw requests there."""
        first, last = np.searchsorted(self.cells[:, 0], [city_id, city_id + 1])
        place = first + np.searchsorted(self.cells[first:last, 1], cell)
        return bool(place < last and self.cells[place, 1] == cell)

    def predict(self, cells: Ints, hours: Ints) -> Floats:
        """Requests expected in each cell and hour (since 1970); shape (n,). Runs in any thread."""
        return self.counts.predict(features({CELL: cells, HOUR: hours}))

    def files(self) -> dict[str, bytes]:
        """As it is saved."""
        cells = io.BytesIO()
        np.save(cells, self.cells, allow_pickle=False)
        return {MODEL_FILE: self.counts.encoded(), CELLS_FILE: cells.getvalue()}


def from_artefact(artefact: Artefact) -> DemandModel:
    """A version as it was saved.

    Raises:
        ValueError: it was trained on other features than this program computes, or a file is not what it should be.
    """
    if artefact.candidate.features != names(FEATURES):
        raise ValueError(f"{artefact.path} has features {artefact.candidate.features}, this program computes {names(FEATURES)}")
    cells: Ints = np.load(io.BytesIO(artefact.files[CELLS_FILE]), allow_pickle=False)
    model = DemandModel(Boosted.decoded(artefact.files[MODEL_FILE]), cells)
    # The first prediction builds what later ones use; a model that cannot answer is found here.
    if not np.isfinite(model.predict(cells[:1, 1], np.zeros(1, np.int64))).all():
        raise ValueError(f"{artefact.path} does not answer")
    return model
