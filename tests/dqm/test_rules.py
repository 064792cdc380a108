"""Declared rules on a partition's statistics."""

import numpy as np
import pytest

from arterial.api.controlplane.v1 import specs_pb2
from services.dqm.frame import Points, frame
from services.dqm.judging import Seen, partition
from services.dqm.metrics import Metric
from services.dqm.rules import Assertion, Rule, broken, rules_by_dataset
from services.dqm.verdicts import Verdict

DATE = "2026-11-24"
TOLD = frame(
    "lake/curated/trips",
    {DATE: 1},
    [
        Points("", "", Metric.COUNT, [DATE], [100.0]),
        *(
            Points("", column, metric, [DATE], [value])
            for column, values in {"id": (0.0, 100.0, 1.0, 9.0), "far": (2.0, 90.0, -5.0, 40.0)}.items()
            for metric, value in zip((Metric.NULLS, Metric.DISTINCT, Metric.MIN, Metric.MAX), values, strict=True)
        ),
        Points("1", "id", Metric.NULLS, [DATE], [50.0]),
    ],
)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule("r", Assertion.NOT_NULL, ("id",)), None),
        (Rule("r", Assertion.NOT_NULL, ("id", "far")), "2 of 100 values of far are null"),
        (Rule("r", Assertion.NOT_NULL, ("far",), tolerance=0.02), None),
        (Rule("r", Assertion.UNIQUE, ("id",)), None),
        (Rule("r", Assertion.UNIQUE, ("far",)), "8 of 100 values of far are repeats"),
        (Rule("r", Assertion.RANGE, ("far",), least=0), "between -5 and 40"),
        (Rule("r", Assertion.RANGE, ("far",), least=-5, most=40), None),
        (Rule("r", Assertion.ROW_COUNT, most=99), "100 rows"),
        (Rule("r", Assertion.ROW_COUNT, least=100), None),
        (Rule("r", Assertion.NOT_NULL, ("gone",)), "no statistics of gone"),
    ],
)
def test_a_rule_is_kept_or_its_breach_told(rule: Rule, why: str | None) -> None:
    """By the statistics of the whole partition; what they do not tell is not kept."""
    found = broken(TOLD, np.datetime64(DATE), [rule])
    assert (why is None and not found) or (why is not None and len(found) == 1 and why in found[0])


def test_a_breach_fails_the_partition_whatever_the_forecast_says() -> None:
    """Also while the history is too short for one."""
    seen = Seen((), 0, 0, 0, "its history is too short", ("rule r: 1 of 2 values of id are null",))
    told = partition("lake/curated/trips", DATE, 1, seen, ())
    assert told.verdict is Verdict.FAIL and told.reasons == seen.broken


def test_advisory_rules_are_told_and_do_not_block() -> None:
    """The partition passes, with the advice as its reason."""
    spec = specs_pb2.QualityRuleSpec(dataset="d", test=specs_pb2.QUALITY_TEST_UNIQUE, columns=["a"], tolerance_percent=5, advisory=True)
    assert rules_by_dataset({"x": spec}) == {"d": (Rule("x", Assertion.UNIQUE, ("a",), tolerance=0.05, advisory=True),)}
    told = partition("d", DATE, 1, Seen((), 0, 9, 0, advice=("rule x: 9 of 9 values of a are repeats",)), ())
    assert told.verdict is Verdict.PASS and told.reasons == ("rule x: 9 of 9 values of a are repeats",)
