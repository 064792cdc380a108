"""The travel-time model: features, cleaning, and a version trained from simulated history that keeps what its gates ask."""

import numpy as np
import pyarrow as pa
import pytest

from chassis.config import LakeConfig, OlapConfig
from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Artefacts
from services.controlplane.models.promotion import gate_failures
from services.eta.legs import Legs
from services.eta.model import DEPARTURE, FEATURES, columns_of, features, from_artefact
from services.eta.training import SECONDS, definition, train, trips_of
from tests.learning.tasks import fill, task, trips

PLACES = {"origin_latitude": 40.75, "origin_longitude": -73.98, "destination_latitude": 40.76, "destination_longitude": -73.97}


def _rows(**changed: list[float | None]) -> pa.Table:
    """Trips that differ in one column."""
    count = len(next(iter(changed.values())))
    plain = {**PLACES, DEPARTURE: 1.7e9, SECONDS: 600.0}
    return pa.table({name: pa.array(changed.get(name, [value] * count), pa.float64()) for name, value in plain.items()})


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("origin_latitude", None, "value absent"),
        (DEPARTURE, None, "value absent"),
        ("destination_latitude", 140.0, "position impossible"),
        (SECONDS, 0.0, "duration impossible"),
        (SECONDS, 90_000.0, "duration impossible"),
        ("origin_latitude", 48.0, "speed impossible"),
    ],
)
def test_impossible_trips_are_left_out_and_counted(column: str, value: float | None, reason: str) -> None:
    """Each under the reason that holds, and the good trip beside it stays."""
    good = {**PLACES, DEPARTURE: 1.7e9, SECONDS: 600.0}[column]
    found, left_out = trips_of(_rows(**{column: [value, good]}))
    assert len(found.seconds) == 1
    assert {name: count for name, count in left_out.items() if count} == {reason: 1}


def test_no_position_is_the_null_island() -> None:
    """Zero, zero is what an absent position looks like on the wire."""
    found, left_out = trips_of(_rows(origin_latitude=[0.0], origin_longitude=[0.0]))
    assert (len(found.seconds), left_out["position impossible"]) == (0, 1)


def test_features_know_position_and_time_only() -> None:
    """Nothing that is known when the trip is over: neither its distance, nor its time, nor its fare; lineage says the same."""
    legs = Legs(1, np.array([[40.75, -73.98]]), np.array([[40.75, -73.97]]), np.array([1_767_225_600.0 + 6 * 3600]))
    found = dict(zip([feature.name for feature in FEATURES], features(columns_of(legs))[0].tolist(), strict=True))
    assert found["distance_m"] == pytest.approx(842.4, abs=1)
    assert (found["north_m"], found["east_m"]) == pytest.approx((0.0, found["distance_m"]), abs=1)
    # 1 January 2026 is a Thursday.
    assert (found["hour_of_day"], found["day_of_week"]) == (6.0, 3.0)
    [model] = definition().outputs
    known = {column.column for name, inputs in model.columns.items() if name != SECONDS for column in inputs}
    positions = {f"{end}_position_{degrees}" for end in ("pickup", "dropoff") for degrees in ("latitude", "longitude")}
    assert known == {*positions, "pickup_time"}
    assert [column.column for column in model.columns[SECONDS]] == ["duration_seconds"]


async def test_a_version_from_history_passes_its_gates_and_answers_as_measured(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """Better than both baselines, intervals that cover; saved, loaded and asked it knows the slower city."""
    fill(lake_config, trips())
    run = task(lake_config, olap_config, "eta", "services.eta.training:train")
    lines: list[str] = []
    candidate = await train(run, lines.append)
    assert gate_failures(run.spec, candidate.metrics, None) == []
    assert candidate.metrics["mae_seconds"] < candidate.metrics["median_mae_seconds"]
    assert candidate.metrics["mae_seconds"] < candidate.metrics["reference_mae_seconds"]
    assert "left out" in lines[0]
    saved = Artefacts(run.models).save(run.model, run.version, run.created_at, candidate)
    model = from_artefact(Artefacts(run.models).load(saved.path, saved.sha256))
    origins = np.array([[40.7549, -73.9840], [40.7549 + 1.6, -73.9840 + 2.9]])
    answers = model.predict(Legs(0, origins, origins + 0.02, np.full(2, 1_794_060_000.0)))
    assert (np.diff(answers, axis=1) >= 0).all()
    assert answers[1, 3] > 1.1 * answers[0, 3]


async def test_too_few_trips_teach_nothing(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """The attempt fails with its reason instead of registering a model of nothing."""
    events = trips()
    few = type(events)({name: column.slice(0, 50) for name, column in events.columns.items()}, 50)
    fill(lake_config, few)
    with pytest.raises(ArterialError) as refused:
        await train(task(lake_config, olap_config, "eta", "services.eta.training:train"), lambda _: None)
    assert refused.value.reason is Reason.REFUSED
