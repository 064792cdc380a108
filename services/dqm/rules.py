"""Declared quality rules, judged by a partition's statistics. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from arterial.api.controlplane.v1 import specs_pb2
from services.dqm.frame import Frame
from services.dqm.metrics import ROWS, WHOLE, Metric


class Assertion(Enum):
    """What a rule asserts, by the numbers of the contract."""

    NOT_NULL = specs_pb2.QUALITY_TEST_NOT_NULL
    UNIQUE = specs_pb2.QUALITY_TEST_UNIQUE
    RANGE = specs_pb2.QUALITY_TEST_RANGE
    ROW_COUNT = specs_pb2.QUALITY_TEST_ROW_COUNT


@dataclass(frozen=True)
class Rule:
    """A rule of a dataset. Values of times are seconds since 1970, those of texts their length, as in the statistics."""

    name: str
    test: Assertion
    columns: tuple[str, ...] = ()
    least: float = -np.inf
    most: float = np.inf
    tolerance: float = 0.0
    """Share of rows that may break it."""
    advisory: bool = False
    """True if a breach is only told."""


def rules_by_dataset(declared: Mapping[str, specs_pb2.QualityRuleSpec]) -> dict[str, tuple[Rule, ...]]:
    """Rules by dataset, in the order of their names."""
    found: dict[str, tuple[Rule, ...]] = {}
    for name, spec in sorted(declared.items()):
        least = spec.min if spec.HasField("min") else -np.inf
        most = spec.max if spec.HasField("max") else np.inf
        rule = Rule(name, Assertion(spec.test), tuple(spec.columns), least, most, spec.tolerance_percent / 100, spec.advisory)
        found[spec.dataset] = (*found.get(spec.dataset, ()), rule)
    return dict(sorted(found.items()))


def broken(told: Frame, date: np.datetime64, rules: Sequence[Rule]) -> tuple[str, ...]:
    """Why a partition breaks rules, for people; nothing if it keeps them. What the statistics do not tell cannot be kept."""
    return tuple(
        f"rule {rule.name}: {why}" for rule in rules for column in rule.columns or (ROWS,) for why in _why(told, date, rule, column)
    )


def _why(told: Frame, date: np.datetime64, rule: Rule, column: str) -> list[str]:
    rows = _value(told, date, ROWS, Metric.COUNT)
    if rule.test is Assertion.ROW_COUNT:
        return [] if rule.least <= rows <= rule.most else [f"{rows:g} rows, not within {rule.least:g} and {rule.most:g}"]
    nulls = _value(told, date, column, Metric.NULLS)
    if np.isnan(nulls):
        return [f"there are no statistics of {column}"]
    if rule.test is Assertion.NOT_NULL:
        return [] if nulls <= rule.tolerance * rows else [f"{nulls:g} of {rows:g} values of {column} are null"]
    if rule.test is Assertion.UNIQUE:
        repeated = rows - nulls - _value(told, date, column, Metric.DISTINCT)
        return [] if repeated <= rule.tolerance * rows else [f"{repeated:g} of {rows:g} values of {column} are repeats"]
    low, high = _value(told, date, column, Metric.MIN), _value(told, date, column, Metric.MAX)
    within = nulls == rows or (low >= rule.least and high <= rule.most)
    return [] if within else [f"values of {column} lie between {low:g} and {high:g}, not within {rule.least:g} and {rule.most:g}"]


def _value(told: Frame, date: np.datetime64, column: str, metric: Metric) -> float:
    """NaN if the statistics do not tell it."""
    day = told.day(date)
    found = told.values[told.where(WHOLE, column, metric)]
    return float(found[0, day]) if len(found) and 0 <= day < found.shape[1] else float("nan")
