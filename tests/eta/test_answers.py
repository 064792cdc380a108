"""Answers for legs: nested intervals, the rule without a model, and how far live speeds move them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from chassis import resourcefiles
from services.eta.answers import INTERVALS, MEDIAN, Answers, Live, answers
from services.eta.legs import POINTS, Floats, Legs

SEED = Path(__file__).parents[2] / "deploy" / "resources" / "eta.yaml"
POLICY: specs_pb2.EtaPolicySpec = next(each for each in resourcefiles.read([SEED]) if each.kind == "EtaPolicy").eta_policy
NOW = 1_767_225_600.0
HERE, THERE = (40.7559, -73.9870), (40.7736, -73.9566)


def legs(count: int = 1, departure: float = NOW) -> Legs:
    """The same leg so many times."""
    return Legs(1, np.array([HERE] * count), np.array([THERE] * count), np.full(count, departure))


def live(ratio: int, observations: int = 1000, age: float = 0.0, count: int = 1) -> Live:
    """The same at all points."""
    return Live(np.full((count, POINTS), ratio, np.int64), np.full((count, POINTS), observations, np.int64), age)


def ask(given_live: Live, predicted: Floats | None = None, departure: float = NOW) -> Answers:
    """Answers for one leg."""
    return answers(legs(departure=departure), predicted, given_live, policy=POLICY, now=NOW)


def model(median: float) -> NDArray[np.float64]:
    """Quantiles around a median."""
    return median * np.array([[0.6, 0.75, 0.88, 1.0, 1.15, 1.35, 1.7]])


def test_distance_is_that_of_the_sphere() -> None:
    """A quarter of the meridian, and across the date line."""
    ends = Legs(1, np.array([[0.0, 0.0], [0.0, 179.5]]), np.array([[90.0, 0.0], [0.0, -179.5]]), np.zeros(2))
    assert ends.distance_m() == pytest.approx([10_007_557, 111_195], rel=1e-4)


def test_cells_lead_from_origin_to_destination() -> None:
    """First and last point lie within a leg's sixteenth of its ends; a leg over the date line stays near it."""
    from h3.api import basic_int

    found = legs().cells(8)[0].tolist()
    assert len(set(found)) > 3
    for cell, end in ((found[0], HERE), (found[-1], THERE)):
        assert basic_int.grid_distance(cell, basic_int.latlng_to_cell(*end, 8)) <= 1
    across = Legs(1, np.array([[0.0, 179.9]]), np.array([[0.0, -179.9]]), np.zeros(1)).cells(8)[0].tolist()
    assert all(abs(basic_int.cell_to_latlng(cell)[1]) > 179.8 for cell in across)


def test_without_a_model_the_reference_speed_answers() -> None:
    """Median is distance by speed, intervals are wide, nothing live went in."""
    found = ask(live(0))
    assert found.quantiles[0, MEDIAN] == pytest.approx(legs().distance_m()[0] / 8.0)
    assert found.quantiles[0, 6] / found.quantiles[0, 0] > 5
    assert (found.of_model.tolist(), found.of_live.tolist(), found.live_ratio_milli.tolist()) == ([False], [False], [1000])


@given(st.floats(1.0, 80_000.0), st.integers(0, 4000), st.integers(0, 500), st.floats(0, 4000))
def test_intervals_are_nested_around_the_median(median: float, ratio: int, observations: int, age: float) -> None:
    """50 within 80 within 95 per cent, whatever model and live speeds say."""
    row = ask(live(ratio, observations, age), model(median)).quantiles[0]
    assert np.isfinite(row).all() and row[0] > 0
    ends = [(row[low], row[high]) for _, low, high in INTERVALS]
    assert all(outer[0] <= inner[0] <= row[MEDIAN] <= inner[1] <= outer[1] for inner, outer in pairwise(ends))


def test_a_jam_slows_the_answer_but_not_beyond_what_is_live() -> None:
    """More observations move it further towards the live time, old ones and late parts of the leg less."""
    reference = float(legs().distance_m()[0]) / 8.0
    calm = ask(live(0), model(reference)).quantiles[0, MEDIAN]
    few, many = (ask(live(3000, number), model(reference)).quantiles[0, MEDIAN] for number in (5, 500))
    old = ask(live(3000, 500, age=1800), model(reference)).quantiles[0, MEDIAN]
    assert calm < few < many < 3 * reference
    assert calm < old < many
    found = ask(live(3000, 500), model(reference))
    assert (found.of_model[0], found.of_live[0]) == (True, True) and found.live_ratio_milli[0] == 3000


def test_a_model_that_already_expects_the_jam_is_left_alone() -> None:
    """Live speeds correct towards what they say, they do not multiply it again."""
    reference = float(legs().distance_m()[0]) / 8.0
    assert ask(live(2000), model(2 * reference)).quantiles[0, MEDIAN] == pytest.approx(2 * reference)


def test_a_departure_beyond_the_maximum_age_takes_nothing_live() -> None:
    """Neither later nor earlier."""
    for departure in (NOW + POLICY.max_age_seconds + 1, NOW - POLICY.max_age_seconds - 1):
        assert not ask(live(3000), model(600.0), departure).of_live[0]
    assert ask(live(3000), model(600.0), NOW + POLICY.max_age_seconds - 1).of_live[0]


@pytest.mark.parametrize("broken", [float("nan"), -1.0, 0.0, 1e9])
def test_an_impossible_prediction_gives_way_to_the_rule(broken: float) -> None:
    """Row by row."""
    predicted = np.concatenate([model(600.0), model(600.0)])
    predicted[1, 2] = broken
    found = answers(legs(2), predicted, live(0, count=2), policy=POLICY, now=NOW)
    assert found.of_model.tolist() == [True, False]
    assert found.quantiles[0].tolist() == model(600.0)[0].tolist()
    assert found.quantiles[1, MEDIAN] == pytest.approx(legs().distance_m()[0] / 8.0)
