"""One step ahead on short histories."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.dqm.forecast import forecast
from tests.dqm.tables import WEEKDAYS


def weekly(days: int, level: float = 1000.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A pure week that repeats; shape (1, days)."""
    return (level * WEEKDAYS[np.arange(days) % 7])[None, :]


@given(st.floats(1, 1e9), st.integers(8, 60))
def test_a_week_that_repeats_is_forecast_exactly(level: float, days: int) -> None:
    """Without noise the season is known after one week, and nothing is an error afterwards."""
    told = forecast(weekly(days, level), 7)
    np.testing.assert_allclose(told.expected, level * WEEKDAYS[days % 7], rtol=1e-9)
    assert np.nanmax(np.abs(told.errors)) <= 1e-9 * level


def test_noise_is_forecast_nearly_as_well_as_by_the_truth() -> None:
    """With 27 days, errors are at most a fifth larger than those of somebody who knows the weekday's mean."""
    random = np.random.default_rng(1)
    days = random.normal(weekly(28), 20.0, (2000, 28))
    told = forecast(days[:, :27], 7)
    errors = days[:, 27] - told.expected
    assert np.std(errors) < 1.2 * 20.0
    assert abs(np.mean(errors)) < 3.0


@given(st.lists(st.booleans(), min_size=28, max_size=28))
def test_missing_days_are_stepped_over(gone: list[bool]) -> None:
    """Days that are missing change nothing of a perfect week, as long as each weekday was seen."""
    days = weekly(28)
    days[0, 7:][np.array(gone[7:])] = np.nan
    np.testing.assert_allclose(forecast(days, 7).expected, 1000 * WEEKDAYS[0], rtol=1e-9)


def test_a_bad_day_does_not_bend_the_days_after_it() -> None:
    """A day of ten times the rows moves the forecast of the next by less than a tenth."""
    random = np.random.default_rng(2)
    days = random.normal(weekly(28), 10.0, (200, 28))
    days[:, 24] *= 10
    assert np.all(np.abs(forecast(days, 7).expected / (1000 * WEEKDAYS[0]) - 1) < 0.1)


def test_a_lasting_change_is_followed() -> None:
    """Two weeks after the level doubled, the new level is what is expected."""
    random = np.random.default_rng(3)
    days = random.normal(weekly(42), 10.0, (200, 42))
    days[:, 28:] *= 2
    assert np.median(np.abs(forecast(days, 7).expected / 2000 / WEEKDAYS[0] - 1)) < 0.15


def test_a_series_of_nothing_has_no_forecast() -> None:
    """A series without any value is unknown; its neighbours are not."""
    told = forecast(np.concatenate([np.full((1, 28), np.nan), weekly(28)]), 7)
    assert np.isnan(told.expected[0])
    assert np.isnan(told.errors[0]).all()
    assert told.expected[1] == 1000 * WEEKDAYS[0]
