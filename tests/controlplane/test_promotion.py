"""Gates, shadow, pin and rollback of model versions."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arterial.api.controlplane.v1 import specs_pb2
from chassis.errors import ArterialError, Reason
from services.controlplane.models import promotion
from services.controlplane.models.promotion import Comparison, Stage, Standing, Version

GATES = [specs_pb2.ModelGate(metric="mae", at_most=100.0, max_ratio_to_live=1.1), specs_pb2.ModelGate(metric="coverage", at_least=0.7)]


def spec(shadow_answers: int = 0, pinned: str = "") -> specs_pb2.ModelSpec:
    """A model with gates on mae and coverage."""
    return specs_pb2.ModelSpec(service="eta", gates=GATES, shadow_answers=shadow_answers, pinned_version=pinned)


def version(name: str, mae: float = 50.0, coverage: float = 0.8) -> Version:
    """A trained version."""
    return Version(name, {"mae": mae, "coverage": coverage})


def stages(model: specs_pb2.ModelSpec, versions: Sequence[Version]) -> dict[str, str]:
    """What each version does."""
    live = promotion.live_of(model, versions)
    return {found.version: str(promotion.stage_of(found, live)) for found in versions}


def add(model: specs_pb2.ModelSpec, *names: str) -> list[Version]:
    """Versions registered one after the other."""
    versions: list[Version] = []
    for name in names:
        versions = promotion.registered(model, versions, version(name))
    return versions


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"mae": 101.0, "coverage": 0.8}, "mae is 101, more than 100"),
        ({"mae": 50.0, "coverage": 0.6}, "coverage is 0.6, less than 0.7"),
        ({"mae": 56.0, "coverage": 0.8}, "mae is 56, more than 1.1 times that of the live version (50)"),
        ({"mae": 50.0}, "coverage is missing"),
        ({"mae": math.nan, "coverage": 0.8}, "mae is nan, not a number that can be judged"),
        ({"mae": -math.inf, "coverage": 0.8}, "mae is -inf, not a number that can be judged"),
    ],
)
def test_a_gate_that_fails_rejects_the_version_and_the_live_one_stays(metrics: dict[str, float], why: str) -> None:
    """With the reason."""
    versions = promotion.registered(spec(), add(spec(), "1"), Version("2", metrics))
    assert stages(spec(), versions) == {"1": Stage.LIVE, "2": Stage.REJECTED}
    assert versions[-1].reasons[0] == why


def test_the_first_version_is_live_at_once() -> None:
    """There is nothing to compare it with; neither has it a ratio to live."""
    versions = add(spec(100), "1")
    assert stages(spec(100), versions) == {"1": Stage.LIVE}


def test_a_shadow_goes_live_after_enough_answers() -> None:
    """Not before; the one that was live retires."""
    model = spec(100)
    versions = promotion.compared(model, add(model, "1", "2"), "2", Comparison(99, 0, 3.0))
    assert stages(model, versions) == {"1": Stage.LIVE, "2": Stage.SHADOW}
    versions = promotion.compared(model, versions, "2", Comparison(1, 1, 3.0))
    assert stages(model, versions) == {"1": Stage.RETIRED, "2": Stage.LIVE}
    assert versions[-1].reasons == ("in shadow of 1: 100 answers, 1 failed, mean difference 3",)


def test_a_shadow_that_fails_too_often_is_rejected() -> None:
    """As soon as it can no longer keep to the limit, and then it takes no more reports."""
    model = spec(100)
    versions = promotion.compared(model, add(model, "1", "2"), "2", Comparison(10, 2, 3.0))
    assert stages(model, versions) == {"1": Stage.LIVE, "2": Stage.REJECTED}
    with pytest.raises(ArterialError) as caught:
        promotion.compared(model, versions, "2", Comparison(10, 0, 3.0))
    assert caught.value.reason is Reason.REFUSED


def test_one_version_is_in_shadow_the_newest() -> None:
    """A newer one takes its place; one that was trained before what is known comes too late."""
    model = spec(100)
    versions = promotion.registered(model, add(model, "1", "3", "4"), version("2"))
    assert stages(model, versions) == {"1": Stage.LIVE, "3": Stage.REJECTED, "4": Stage.SHADOW, "2": Stage.REJECTED}
    assert versions[-1].reasons == ("4 is newer",)


def test_rollback_goes_back_one_version_each_time_until_there_is_none() -> None:
    """What was rolled back stays out, also when another version is registered."""
    versions = promotion.rolled_back(spec(), add(spec(), "1", "2", "3"), "too slow")
    assert stages(spec(), versions) == {"1": Stage.RETIRED, "2": Stage.LIVE, "3": Stage.REJECTED}
    assert versions[-1].reasons[-1] == "rolled back: too slow"
    versions = promotion.rolled_back(spec(), versions, "too slow as well")
    with pytest.raises(ArterialError) as caught:
        promotion.rolled_back(spec(), versions, "no more")
    assert caught.value.reason is Reason.REFUSED
    versions = promotion.registered(spec(), versions, version("4"))
    assert stages(spec(), versions) == {"1": Stage.RETIRED, "2": Stage.REJECTED, "3": Stage.REJECTED, "4": Stage.LIVE}


def test_a_pin_wins_and_its_removal_gives_the_newest_that_passed() -> None:
    """Also a rejected version can be pinned; nothing is promoted meanwhile."""
    versions = promotion.rolled_back(spec(), add(spec(), "1", "2", "3"), "slow")
    pinned = spec(pinned="3")
    versions = promotion.registered(pinned, promotion.settled(pinned, versions), version("4"))
    assert stages(pinned, versions) == {"1": Stage.RETIRED, "2": Stage.RETIRED, "3": Stage.LIVE, "4": Stage.SHADOW}
    with pytest.raises(ArterialError, match="pinned"):
        promotion.rolled_back(pinned, versions, "no")
    versions = promotion.settled(spec(), versions)
    assert stages(spec(), versions) == {"1": Stage.RETIRED, "2": Stage.RETIRED, "3": Stage.REJECTED, "4": Stage.LIVE}


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.integers(0, 20), st.floats(40, 110)),
        st.tuples(st.just("compare"), st.integers(1, 60), st.floats(0, 2)),
        st.tuples(st.just("roll_back"), st.just(0), st.just(0.0)),
    ),
    max_size=25,
)


@given(ACTIONS, st.integers(0, 100))
def test_once_a_version_is_live_there_is_always_exactly_one(actions: list[tuple[str, int, float]], shadow_answers: int) -> None:
    """Whatever is registered, reported and rolled back: one live, at most one in shadow, settling again changes nothing."""
    model = spec(shadow_answers)
    versions: list[Version] = []
    for name, number, value in actions:
        before = promotion.live_of(model, versions)
        try:
            if name == "register" and f"{number:02d}" not in stages(model, versions):
                versions = promotion.registered(model, versions, version(f"{number:02d}", value))
            elif name == "compare" and (shadow := promotion.shadow_of(model, versions)):
                versions = promotion.compared(model, versions, shadow.version, Comparison(number, int(value), value))
            elif name == "roll_back":
                versions = promotion.rolled_back(model, versions, "because")
        except ArterialError as error:
            assert error.reason is Reason.REFUSED
        found = list(stages(model, versions).values())
        assert found.count(Stage.LIVE) == (before is not None or Stage.LIVE in found) and found.count(Stage.SHADOW) <= 1
        assert promotion.settled(model, versions) == versions
        live = promotion.live_of(model, versions)
        assert live is None or live.standing is Standing.PASSED
