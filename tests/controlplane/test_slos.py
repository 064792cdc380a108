"""Objectives: what counts for them, how they are met, and who is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import slo_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import slo_service_pb2_grpc
from chassis.errors import ArterialError, Reason
from chassis.testing import channel
from services.controlplane.partitions.partitions import Aspect, Judged, PartitionKey, Verdict
from services.controlplane.slos import slos
from services.controlplane.slos.slo_store import KEEP_DAYS, SloStore, count
from services.controlplane.slos.slos import Objective, Standing, Tally
from services.controlplane.tables import PARTITION_VERDICTS, SLO_SAMPLES
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import Stubs, report, stubs, verdict
from tests.terminal import Terminal

TODAY = date(2026, 11, 25)
FRESH = Objective("fresh", "maps", 1, "lake/x", Aspect.FRESHNESS, 300, 99.0, 28)


def said(verdict: Verdict, value: float | None = None, *, back: int = 0, aspect: Aspect = Aspect.FRESHNESS, of: str = "lake/x") -> Judged:
    """A verdict on the partition of so many days back."""
    return Judged(PartitionKey(of, TODAY - timedelta(days=back)), verdict, 1, aspect=aspect, value=value)


@pytest.mark.parametrize(
    ("verdicts", "good"),
    [
        ([], None),
        ([said(Verdict.PASS)], True),
        ([said(Verdict.FAIL)], False),
        ([said(Verdict.FAIL, 300)], True),
        ([said(Verdict.PASS, 301)], False),
        ([said(Verdict.UNKNOWN, 5)], None),
        ([said(Verdict.NOT_JUDGED, 5)], None),
        ([said(Verdict.PASS, 5, back=1)], None),
        ([said(Verdict.PASS, 5, of="lake/y")], None),
        ([said(Verdict.PASS, 5, aspect=Aspect.QUALITY)], None),
    ],
)
def test_what_counts_is_the_verdict_on_the_day_that_goes_on(verdicts: list[Judged], good: bool | None) -> None:
    """By the objective's own threshold where a value was measured; what could not be told counts neither way."""
    assert slos.sample(FRESH, verdicts, TODAY) is good


def test_of_completeness_the_day_counts_that_ended_last_and_of_quality_none() -> None:
    """At least the threshold is good; without one, what the verdict says."""
    complete, quality = replace(FRESH, indicator=Aspect.COMPLETENESS, threshold=99.5), replace(FRESH, indicator=Aspect.QUALITY)
    for value, good in ((99.5, True), (99.4, False)):
        given = [said(Verdict.FAIL, value, back=1, aspect=Aspect.COMPLETENESS), said(Verdict.FAIL, 0, aspect=Aspect.COMPLETENESS)]
        assert slos.sample(complete, given, TODAY) is good
        assert slos.sample(replace(complete, threshold=0), given, TODAY) is False
    assert slos.sample(quality, [said(Verdict.PASS, aspect=Aspect.QUALITY)], TODAY) is None


@pytest.mark.parametrize(
    ("good", "total", "standing", "left"),
    [
        (0, 0, Standing.NOT_MEASURED, 100),
        (1000, 1000, Standing.MET, 100),
        (9995, 10_000, Standing.MET, 50),
        (999, 1000, Standing.MET, 0),
        (998, 1000, Standing.BUDGET_SPENT, -100),
        (0, 1000, Standing.BUDGET_SPENT, -99_900),
    ],
)
def test_the_budget_is_the_share_that_may_be_bad(good: int, total: int, standing: Standing, left: float) -> None:
    """Of 99.9 % a thousandth; exactly spent is still met."""
    tally = Tally("local", total, good)
    assert tally.standing(99.9) is standing and tally.budget_left_percent(99.9) == pytest.approx(left)


@given(st.integers(0, 10_000), st.integers(1, 10_000), st.floats(0.01, 99.99))
def test_an_objective_is_met_as_long_as_budget_is_left(bad: int, good: int, objective: float) -> None:
    """Whatever is wanted."""
    tally = Tally("local", good + bad, good)
    left = tally.budget_left_percent(objective)
    if abs(left) > 1e-3:
        assert (tally.standing(objective) is Standing.MET) is (left > 0)


def test_what_a_slo_does_not_say_its_dataset_and_tier_do() -> None:
    """Threshold by its SLA, objective by its tier, 28 days; a topic's records promise no age."""
    dataset = resource_pb2.Resource(metadata=resource_pb2.Metadata(name="lake/x"), dataset=specs_pb2.DatasetSpec(tier=2))
    dataset.dataset.sla.freshness_seconds = 120
    slo = resource_pb2.Resource(
        metadata=resource_pb2.Metadata(name="s", owner="maps", generation=3), slo=specs_pb2.SloSpec(dataset="lake/x")
    )
    for indicator, name, threshold in ((1, Aspect.FRESHNESS, 120), (2, Aspect.COMPLETENESS, 99), (3, Aspect.QUALITY, 0)):
        slo.slo.indicator = specs_pb2.SloIndicator.ValueType(indicator)
        assert slos.objective(slo, dataset) == Objective("s", "maps", 3, "lake/x", name, threshold, 99.0, 28)
    slo.slo.threshold, slo.slo.objective_percent, slo.slo.window_days = 98, 90, 7
    assert slos.objective(slo, dataset) == Objective("s", "maps", 3, "lake/x", Aspect.QUALITY, 98, 90, 7)


def resource(to: Stubs, indicator: str, **spec: Any) -> resource_pb2.Resource:
    """A Slo of the test's own dataset."""
    return resource_pb2.Resource(
        api_version="arterial.dev/v1",
        kind="Slo",
        metadata=resource_pb2.Metadata(name=f"{to.name}-{indicator.lower()}", owner="maps"),
        slo=specs_pb2.SloSpec(dataset=dataset(to), indicator=specs_pb2.SloIndicator.Value(f"SLO_INDICATOR_{indicator}"), **spec),
    )


def dataset(to: Stubs) -> str:
    """The test's own dataset, of tier 3."""
    return f"lake/raw/{to.name}"


async def declare(to: Stubs, *declared: resource_pb2.Resource) -> None:
    """Applies the dataset and objectives."""
    spec = specs_pb2.DatasetSpec(description="d", tier=3, sla=specs_pb2.Sla(freshness_seconds=60))
    metadata = resource_pb2.Metadata(name=dataset(to), owner="maps")
    described = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Dataset", metadata=metadata, dataset=spec)
    await to.control.Apply(control.ApplyRequest(resources=[described, *declared]))


@asynccontextmanager
async def database(plane: ControlPlane) -> AsyncIterator[AsyncEngine]:
    """The control plane's own."""
    engine = create_async_engine(plane.config.sql.url)
    yield engine
    await engine.dispose()


async def status(plane: ControlPlane, name: str) -> pb.SloStatus:
    """As it is served."""
    async with channel(plane.address) as connection:
        stub: Any = slo_service_pb2_grpc.SloServiceStub(connection)
        reply: pb.GetSloStatusResponse = await stub.GetSloStatus(pb.GetSloStatusRequest(name=name))
        return reply.status


async def ready(to: Stubs, name: str) -> list[tuple[str, str, str]]:
    """Cell, status and reason of the conditions of a Slo."""
    found = (await to.control.GetResource(control.GetResourceRequest(kind="Slo", name=name))).resource
    return [(told.cell, told.status, told.reason) for told in found.status.conditions]


async def test_verdicts_that_are_reported_measure_objectives(shared_plane: ControlPlane, terminal: Terminal) -> None:
    """The condition says so by cell, without a new version of the resource; `arterial slo` and `get` show it."""
    async with stubs(shared_plane) as to:
        fresh, quality = resource(to, "FRESHNESS"), resource(to, "QUALITY", objective_percent=50)
        await declare(to, fresh, quality)
        name = fresh.metadata.name
        before = (await to.control.GetResource(control.GetResourceRequest(kind="Slo", name=name))).resource.metadata
        assert await ready(to, name) == [("", "Unknown", "NotMeasured")]
        assert "not measured" in await terminal.text("slo", name)
        today = datetime.now(UTC).date()
        days = {day: (today - timedelta(days=day)).isoformat() for day in (0, 1, 2)}
        fail = verdict(dataset(to), "FAIL", 1, days[0], aspect="FRESHNESS", value=61)
        await report(to, fail, verdict(dataset(to), "PASS", 1, days[1]), verdict(dataset(to), "FAIL", 1, days[2]))
        if datetime.now(UTC).date() != today:
            pytest.skip("midnight came between")
        assert await ready(to, name) == [(to.cell, "False", "BudgetSpent")]
        assert await ready(to, quality.metadata.name) == [(to.cell, "True", "Met")]
        found = await status(shared_plane, name)
        assert (found.threshold, found.objective_percent, found.window_days, found.owner) == (60, 95, 28, "maps")
        assert [(cell.cell, cell.standing, cell.total, cell.good) for cell in found.cells] == [
            (to.cell, pb.SLO_STANDING_BUDGET_SPENT, 1, 0),
        ]
        assert found.cells[0].budget_left_percent == pytest.approx(-1900) and found.cells[0].measured_since.ToSeconds() > 0
        after = (await to.control.GetResource(control.GetResourceRequest(kind="Slo", name=name))).resource.metadata
        assert after == before
        shown = await terminal.text("slo")
        line = next(line for line in shown.splitlines() if line.startswith(quality.metadata.name))
        assert line.split()[2:] == ["quality", to.cell, "met", "50.000", "%", "50", "%", "0.0", "%", "28", "d", days[2], "00:00"]
        assert any(name in line and line.endswith("False") for line in (await terminal.text("get", "Slo")).splitlines())
        assert (await terminal.document("slo", quality.metadata.name))["cells"][0]["good"] == "1"
        with pytest.raises(ArterialError) as caught:
            await terminal.text("slo", "absent")
        assert caught.value.reason is Reason.NOT_FOUND


async def test_windows_end_today_and_have_so_many_days(shared_plane: ControlPlane) -> None:
    """The first day of the window counts, the day before does not, nor what was measured of another dataset; by cell."""
    async with stubs(shared_plane) as to, database(shared_plane) as engine:
        fresh, quality = resource(to, "FRESHNESS", window_days=7, objective_percent=90), resource(to, "QUALITY", window_days=7)
        await declare(to, fresh, quality)
        async with engine.begin() as connection:
            today = (await connection.execute(sa.text("SELECT (now() AT TIME ZONE 'UTC')::date"))).scalar_one()
            for back, good, cell, of in (
                (7, 0, "a", dataset(to)),
                (6, 8, "a", dataset(to)),
                (0, 9, "a", dataset(to)),
                (0, 10, "b", "lake/z"),
            ):
                key = {"slo": fresh.metadata.name, "cell": cell, "dataset": of, "indicator": "FRESHNESS", "day": today - timedelta(back)}
                since = datetime.combine(key["day"], datetime.min.time(), UTC)
                rest = {"total": 10, "good": good, "minute": since, "minute_good": True, "measured_since": since}
                await connection.execute(sa.insert(SLO_SAMPLES).values(key | rest))
        for cell in (to.cell, f"{to.cell}-2"):
            other = replace(to, name=cell.removeprefix("cell-"))
            days = [(today - timedelta(back)).isoformat() for back in (7, 6, 0, -1)]
            given = [verdict(dataset(to), said, 1, day) for day, said in zip(days, ("FAIL", "PASS", "UNKNOWN", "FAIL"), strict=True)]
            await report(other, *given)
        found, judged = [(await status(shared_plane, each.metadata.name)).cells for each in (fresh, quality)]
        if datetime.now(UTC).date() != today:
            pytest.skip("midnight came between")
        assert [(cell.cell, cell.total, cell.good, cell.share_percent) for cell in found] == [("a", 20, 17, 85.0)]
        assert found[0].budget_left_percent == pytest.approx(-50)
        assert found[0].measured_since.ToDatetime(UTC).date() == today - timedelta(days=6)
        assert [(cell.cell, cell.total, cell.good) for cell in judged] == [(to.cell, 1, 1), (f"{to.cell}-2", 1, 1)]


async def test_a_minute_counts_once_and_is_good_if_nothing_in_it_was_bad(shared_plane: ControlPlane) -> None:
    """Whoever reports how often, in whatever order."""
    async with stubs(shared_plane) as to, database(shared_plane) as engine, engine.begin() as connection:
        wanted = replace(FRESH, name=to.name)
        noon = datetime(2026, 11, 25, 12, tzinfo=UTC)
        plan = [(0, True), (30, True), (60, True), (70, False), (80, True), (120, False), (130, True), (180, True), (43_200, True)]
        for seconds, good in plan:
            await count(connection, to.cell, noon + timedelta(seconds=seconds), {wanted: good})
        query = sa.select(SLO_SAMPLES.c.day, SLO_SAMPLES.c.total, SLO_SAMPLES.c.good, SLO_SAMPLES.c.measured_since)
        rows = (await connection.execute(query.where(SLO_SAMPLES.c.slo == to.name).order_by(SLO_SAMPLES.c.day))).all()
        assert [tuple(row) for row in rows] == [
            (noon.date(), 4, 2, noon),
            (date(2026, 11, 26), 1, 1, noon + timedelta(seconds=43_200)),
        ]


async def test_what_no_window_has_is_forgotten_and_what_nobody_measures_is_said_so(plane: ControlPlane) -> None:
    """Minutes older than the longest window, and those of objectives that are gone; conditions move as windows do."""
    async with stubs(plane) as to, database(plane) as engine:
        fresh = resource(to, "FRESHNESS", window_days=366)
        await declare(to, fresh)
        name = fresh.metadata.name
        async with engine.begin() as connection:
            today = (await connection.execute(sa.text("SELECT (now() AT TIME ZONE 'UTC')::date"))).scalar_one()
            for back, slo in ((KEEP_DAYS, name), (KEEP_DAYS - 1, name), (0, "gone")):
                values = {"slo": slo, "cell": "a", "dataset": dataset(to), "indicator": "FRESHNESS", "day": today - timedelta(back)}
                now = datetime.now(UTC)
                await connection.execute(
                    sa.insert(SLO_SAMPLES).values(
                        values | {"total": 1, "good": 1, "minute": now, "minute_good": True, "measured_since": now}
                    )
                )
        await SloStore(engine).refresh()
        if datetime.now(UTC).date() != today:
            pytest.skip("midnight came between")
        async with engine.connect() as connection:
            rows = (await connection.execute(sa.select(SLO_SAMPLES.c.slo, SLO_SAMPLES.c.day))).all()
            assert [tuple(row) for row in rows] == [(name, today - timedelta(KEEP_DAYS - 1))]
            assert (await connection.execute(sa.select(sa.func.count()).select_from(PARTITION_VERDICTS))).scalar_one() == 0
        assert await ready(to, name) == [("a", "True", "Met")]
