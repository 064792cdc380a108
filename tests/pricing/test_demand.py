"""The demand model: from simulated history, against the plain mean, and what it says of places that it never saw."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from h3.api import basic_int

from arterial.api.controlplane.v1 import resource_pb2
from arterial.api.pricing.v1 import pricing_service_pb2 as pb
from arterial.api.types.v1 import standing_pb2
from chassis import kv, testing
from chassis.config import KvConfig, LakeConfig, OlapConfig
from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Artefact, Artefacts
from chassis.learning.serving import ServedModel
from chassis.learning.task import Task
from services.controlplane.models.promotion import gate_failures
from services.pricing.demand import from_artefact
from services.pricing.demand_training import MONDAY_HOUR, REQUESTS, Counts, Weekly, definition, train
from services.pricing.handler import Demand, PricingHandler
from services.pricing.store import surge_store
from tests.learning.tasks import FIRST, SMALL, fill, task, trips

TRAINER = "services.pricing.demand_training:train"


async def test_a_version_from_history_beats_the_mean_of_the_hour(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """Its gates hold; saved and loaded it expects more at five in the afternoon than at night, and knows the cells that it saw."""
    fill(lake_config, trips(FIRST - timedelta(days=7), 14, SMALL[:1]))
    run = task(lake_config, olap_config, "demand", TRAINER)
    lines: list[str] = []
    candidate = await train(run, lines.append)
    assert gate_failures(run.spec, candidate.metrics, None) == []
    assert candidate.metrics["deviance"] < candidate.metrics["mean_deviance"]
    saved = Artefacts(run.models).save(run.model, run.version, run.created_at, candidate)
    model = from_artefact(Artefacts(run.models).load(saved.path, saved.sha256))
    cells = model.cells[:, 1]
    # 22:00 and 08:00 UTC are 17:00 and 03:00 in New York.
    evening, night = (model.predict(cells, np.full(len(cells), MONDAY_HOUR + 24 + hour)).sum() for hour in (22, 8))
    assert evening > 2 * night
    assert model.knows(1, int(cells[0]))
    assert not model.knows(2, int(cells[0]))
    assert not model.knows(1, int(cells[0]) + 1)
    await _answers(run, saved)


async def _answers(run: Task, saved: Artefact) -> None:
    """What the service says once the version is live: of a cell that it knows, of another, and without the model."""
    store = surge_store(kv.connect(KvConfig(url="redis://127.0.0.1:1")))
    served: ServedModel[Demand] = ServedModel("demand", run.models, Path(run.lake.root), from_artefact, possible=(0.0, 1e6))
    handler = PricingHandler(store, served, lambda: run.desired, testing.ManualClock(3_600_000_000.0 + 59))
    context: Any = None
    cell = int(from_artefact(saved).cells[0, 1])
    nothing = await handler.ForecastDemand(pb.ForecastDemandRequest(city_id=1, cell=cell), context)
    assert (nothing.standing.source, nothing.model_version) == (standing_pb2.VALUE_SOURCE_NONE, "")
    status = resource_pb2.ModelStatus(live=resource_pb2.ServedVersion(version=saved.version, path=saved.path, sha256=saved.sha256))
    assert await served.apply(status)
    answer = await handler.ForecastDemand(pb.ForecastDemandRequest(city_id=1, cell=basic_int.cell_to_center_child(cell, 9)), context)
    assert (answer.cell, answer.hour.seconds, answer.model_version) == (cell, 3_600_000_000, saved.version)
    assert answer.standing.source == standing_pb2.VALUE_SOURCE_MODEL_ESTIMATE
    expected = from_artefact(saved).predict(np.array([cell]), np.array([1_000_000]))[0]
    assert answer.requests_milli == round(1000 * float(expected)) > 0
    elsewhere = await handler.ForecastDemand(pb.ForecastDemandRequest(city_id=2, cell=cell), context)
    assert (elsewhere.standing.source, elsewhere.requests_milli) == (standing_pb2.VALUE_SOURCE_NONE, 0)
    with pytest.raises(ArterialError) as refused:
        await handler.ForecastDemand(pb.ForecastDemandRequest(city_id=1, cell=12345), context)
    assert refused.value.reason is Reason.INVALID_REQUEST


async def test_a_window_that_is_too_short_teaches_nothing(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """One week leaves nothing to fit before the week that is measured on."""
    fill(lake_config, trips())
    with pytest.raises(ArterialError) as refused:
        await train(task(lake_config, olap_config, "demand", TRAINER), lambda _: None)
    assert refused.value.reason is Reason.REFUSED


def test_weeks_count_hours_without_requests_too() -> None:
    """Ten days have two of some hours of the week and one of others; what is elsewhere or out of the dates is left out."""
    places = np.array([[1, 5], [2, 5]])
    monday = date(2026, 11, 2)
    hour = (monday - date(1970, 1, 1)).days * 24
    asked = np.array([[1, 5], [1, 5], [2, 5], [9, 9], [1, 5]])
    counts = Counts(asked, np.array([hour, hour + 168, hour + 25, hour, hour - 1]), np.array([3.0, 4.0, 5.0, 6.0, 7.0]))
    found = Weekly.of(counts, places, monday, monday + timedelta(days=9))
    assert found.exposure[:72].tolist() == [2.0] * 72
    assert found.exposure[72:].tolist() == [1.0] * 96
    assert (found.requests[0, 0], found.requests[1, 25], found.requests.sum()) == (7.0, 5.0, 12.0)


def test_lineage_names_what_demand_is_made_of() -> None:
    """Place and time of the request, and the trips that are counted."""
    [model] = definition(8).outputs
    assert {name: [column.column for column in inputs] for name, inputs in model.columns.items()} == {
        "cell_latitude": ["pickup_cell"],
        "cell_longitude": ["pickup_cell"],
        "hour_of_day": ["trip_requested_at"],
        "day_of_week": ["trip_requested_at"],
        REQUESTS: ["trip_id"],
    }
