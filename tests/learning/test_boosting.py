"""Boosting: quantiles that do not cross, intervals that cover, models that survive as bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.learning import boosting
from chassis.learning.conformal import COVERAGES, QUANTILES, intervals, margins
from chassis.learning.metrics import coverage

SETTINGS = boosting.Settings(rounds=30, depth=3)


def _data(rows: int, seed: int) -> tuple[boosting.Floats, boosting.Floats]:
    random = np.random.default_rng(seed)
    features = random.uniform(0, 10, (rows, 2))
    # The spread grows with the first feature: intervals of one width would be wrong everywhere.
    return features, features[:, 0] * 5 + random.normal(size=rows) * (1 + features[:, 0])


def test_calibrated_intervals_cover_what_they_promise() -> None:
    """On data that neither fitting nor calibration saw, within sampling error; uncalibrated ones of an overfitted model do not."""
    features, target = _data(1000, seed=1)
    overfitted = boosting.Settings(rounds=200, depth=6, min_child_weight=1, learning_rate=0.3)
    model = boosting.fit_quantiles(features, target, QUANTILES, overfitted)
    widths = margins(*_predicted(model, 4000, seed=2))
    actual, predicted = _predicted(model, 4000, seed=3)
    found, raw = intervals(predicted, widths), intervals(predicted, (0.0, 0.0, 0.0))
    for place, promised in enumerate(COVERAGES):
        assert coverage(actual, found.low[:, place], found.high[:, place]) == pytest.approx(promised / 100, abs=0.03)
    assert coverage(actual, raw.low[:, 1], raw.high[:, 1]) < 0.7


def _predicted(model: boosting.Boosted, rows: int, seed: int) -> tuple[boosting.Floats, boosting.Floats]:
    features, target = _data(rows, seed)
    return target, model.predict(features)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=7, max_size=7), min_size=1, max_size=5), st.tuples(*[st.floats(-1e5, 1e5)] * 3))
def test_intervals_nest_around_the_median(rows: list[list[float]], widths: tuple[float, float, float]) -> None:
    """Whatever the margins, negative ones included."""
    found = intervals(np.sort(np.array(rows), axis=1), widths)
    for place in range(len(COVERAGES)):
        inner_low, inner_high = (found.median, found.median) if place == 0 else (found.low[:, place - 1], found.high[:, place - 1])
        assert (found.low[:, place] <= inner_low).all()
        assert (inner_high <= found.high[:, place]).all()


def test_a_model_survives_as_bytes() -> None:
    """The decoded model predicts the same, to the last digit, and no quantile crosses another."""
    features, target = _data(500, seed=4)
    model = boosting.fit_quantiles(features, target, QUANTILES, SETTINGS)
    decoded = boosting.Boosted.decoded(model.encoded())
    assert np.array_equal(decoded.predict(features), model.predict(features))
    assert (np.diff(decoded.predict(features), axis=1) >= 0).all()
    with pytest.raises(ValueError, match="not a model"):
        boosting.Boosted.decoded(b"not a model")


def test_categories_are_names_not_numbers() -> None:
    """A value that alternates with the category's number is learned from few trees, and an unseen category is answered, too."""
    zones = np.tile(np.arange(40.0), 50)
    target = np.where(zones % 2 == 0, 100.0, 0.0)
    settings = boosting.Settings(rounds=20, depth=3, categories=(0,), learning_rate=0.5)
    model = boosting.fit_quantiles(zones[:, None], target, (0.25, 0.5, 0.75), settings)
    found = boosting.Boosted.decoded(model.encoded(), (0,)).predict(np.array([[2.0], [3.0], [77.0]]))[:, 1]
    assert found[0] > 95
    assert found[1] < 5
    assert np.isfinite(found[2])


def test_counts_are_rates_per_exposure() -> None:
    """Expected counts of a cell seen for twice as long are not twice as high per hour."""
    random = np.random.default_rng(5)
    place = random.integers(0, 2, 4000).astype(np.float64)
    exposure = random.uniform(1, 3, 4000)
    counts = random.poisson(exposure * np.where(place == 0, 2.0, 8.0)).astype(np.float64)
    model = boosting.fit_counts(place[:, None], counts, boosting.Settings(rounds=150, depth=2), exposure)
    assert model.predict(np.array([[0.0], [1.0]])) == pytest.approx([2.0, 8.0], rel=0.15)


def test_a_classifier_gives_probabilities() -> None:
    """Of a label that depends on one feature."""
    features, _ = _data(2000, seed=6)
    model = boosting.fit_classifier(features, features[:, 0] > 5, SETTINGS)
    assert model.predict(np.array([[9.0, 1.0]]))[0] > 0.9
    assert model.predict(np.array([[1.0, 9.0]]))[0] < 0.1
