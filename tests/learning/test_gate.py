"""The gate in front of live versions."""

import math

import pytest

from arterial.api.controlplane.v1.specs_pb2 import ModelGate
from chassis.learning.gate import refusals, shadow_refusal

GATES = [ModelGate(metric="mae", at_most=100, max_ratio_to_live=1.1), ModelGate(metric="coverage", at_least=0.7)]
GOOD = {"mae": 90.0, "coverage": 0.8}


def test_a_version_that_keeps_all_gates_passes() -> None:
    """With and without a live version to compare with."""
    assert refusals(GATES, GOOD, None) == []
    assert refusals(GATES, GOOD, {"mae": 85.0}) == []


@pytest.mark.parametrize(
    ("metrics", "live", "words"),
    [
        ({**GOOD, "mae": 101.0}, None, "mae is 101, at most 100"),
        ({**GOOD, "coverage": 0.6}, None, "coverage is 0.6, at least 0.7"),
        (GOOD, {"mae": 80.0}, "more than 1.1 times"),
        ({"mae": 90.0}, None, "coverage was not measured"),
        ({**GOOD, "mae": math.nan}, None, "mae was not measured"),
    ],
)
def test_each_broken_gate_says_why(metrics: dict[str, float], live: dict[str, float] | None, words: str) -> None:
    """One line each; what was not measured is no pass."""
    [why] = refusals(GATES, metrics, live)
    assert words in why


def test_a_shadow_that_fails_often_does_not_go_live() -> None:
    """One in a hundred is borne, two are not."""
    assert shadow_refusal(1000, 10) is None
    assert "20 of 1000" in str(shadow_refusal(1000, 20))
