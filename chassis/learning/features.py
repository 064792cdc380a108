"""Features as declarations: what each is computed from and how, executed for training and for serving, and read for lineage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Column = NDArray[Any]


@dataclass(frozen=True)
class Feature:
    """A feature, the columns that it is computed from, and how. `of` is given these columns only, so that lineage says what is so."""

    name: str
    columns: tuple[str, ...]
    of: Callable[..., Floats]


def names(features: Sequence[Feature]) -> tuple[str, ...]:
    """Their names, in order: what an artefact notes, and what a program that loads it must compute."""
    return tuple(feature.name for feature in features)


def matrix(features: Sequence[Feature], columns: Mapping[str, Column]) -> Floats:
    """Columns (n,) to features; shape (n, features)."""
    return np.column_stack([feature.of(*(columns[name] for name in feature.columns)) for feature in features])
