"""When schedules tick, and that each tick makes one run, whatever happens to the replicas."""

import asyncio
import signal
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import create_async_engine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as pb
from chassis import testing
from chassis.config import RpcConfig
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from deploy.local.child import Child, free_port
from deploy.local.supervisor import serving
from services.controlplane.jobs import schedules
from services.controlplane.jobs.election import Election
from services.controlplane.jobs.schedule_store import ScheduleStore
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import DAY, PAYMENTS, TRIPS, Stubs, report, schedule, stubs, verdict

ALL, LATEST, NONE = specs_pb2.CATCH_UP_ALL, specs_pb2.CATCH_UP_LATEST, specs_pb2.CATCH_UP_NONE


def spec(expression: str, catch_up: specs_pb2.CatchUp.ValueType = ALL, **more: str) -> specs_pb2.ScheduleSpec:
    """A schedule of New York's clock for the day before."""
    cron = specs_pb2.CronTrigger(expression=expression, time_zone="America/New_York", days_back=1)
    return specs_pb2.ScheduleSpec(cron=cron, catch_up=catch_up, **more)  # type: ignore[arg-type]


def walked(wanted: specs_pb2.ScheduleSpec, position: datetime, now: datetime) -> list[schedules.Tick]:
    """All ticks, step by step, as the scheduler walks."""
    ticks: list[schedules.Tick] = []
    while True:
        decision = schedules.decide(wanted, position, now)
        ticks += decision.ticks
        if decision.position == position:
            return ticks
        position = decision.position


def test_ticks_follow_the_clock_of_the_place_over_the_change_of_time() -> None:
    """A nightly run at 02:30 runs once on the night that has no 02:30, and once on the night that has two."""
    for first, last in ((date(2026, 3, 7), date(2026, 3, 9)), (date(2026, 10, 31), date(2026, 11, 2))):
        wanted = spec("30 2 * * *", start_date=first.isoformat(), end_date=last.isoformat())
        ticks = walked(wanted, schedules.first_position(wanted, datetime.now(UTC)), datetime(2026, 12, 1, tzinfo=UTC))
        assert [tick.day for tick in ticks] == [first, first + timedelta(days=1), last]


def test_the_next_ticks_lie_within_the_dates_of_a_schedule() -> None:
    """Those that will come, in UTC; none of one that is over, paused, or ticks by data."""
    wanted, now = spec("30 2 * * *", start_date="2026-11-20", end_date="2026-11-21"), datetime(2026, 11, 1, tzinfo=UTC)
    assert schedules.coming(wanted, now, 3) == [datetime(2026, 11, day, 7, 30, tzinfo=UTC) for day in (21, 22)]
    assert schedules.coming(spec("30 2 * * *"), now, 1) == [datetime(2026, 11, 1, 7, 30, tzinfo=UTC)]
    assert not schedules.coming(wanted, datetime(2027, 1, 1, tzinfo=UTC), 3)
    wanted.paused = True
    assert not schedules.coming(wanted, now, 3)
    assert not schedules.coming(specs_pb2.ScheduleSpec(data=specs_pb2.DataTrigger(datasets=[TRIPS])), now, 3)


def test_another_first_date_begins_anew_and_none_goes_on() -> None:
    """Who takes the first date of a backfill away, and has changed the time of day since, does not ask for all dates again."""
    declared, now = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 24, 12, tzinfo=UTC)
    walked = ("2026-11-01", datetime(2026, 11, 24, 7, 30, tzinfo=UTC))
    for start, expected in (("2026-11-01", walked[1]), ("", walked[1]), ("2026-11-03", datetime(2026, 11, 4, 4, 59, 59, tzinfo=UTC))):
        assert schedules.position_of(spec("30 2 * * *", start_date=start), declared, walked, now) == expected
    to_come = ("2027-01-01", datetime(2027, 1, 2, 4, 59, 59, tzinfo=UTC))
    assert schedules.position_of(spec("30 2 * * *"), declared, to_come, now) == now
    assert schedules.position_of(spec("30 2 * * *"), declared, None, now) == declared


def test_an_hour_that_comes_twice_is_of_its_day_both_times() -> None:
    """What has ticked does not come next; a last day whose last hour comes twice has both."""
    again = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    assert schedules.coming(spec("30 1 * * *"), again, 1) == [datetime(2026, 11, 2, 6, 30, tzinfo=UTC)]
    wanted = spec("0 * * * *", start_date="2026-04-03", end_date="2026-04-03")
    wanted.cron.time_zone = "America/Santiago"
    ticks = walked(wanted, schedules.first_position(wanted, datetime.now(UTC)), datetime(2026, 12, 1, tzinfo=UTC))
    assert [tick.at for tick in ticks] == [datetime(2026, 4, 4, 3, tzinfo=UTC) + timedelta(hours=hour) for hour in range(25)]


def test_what_is_missed_follows_the_policy() -> None:
    """All, the newest, or none but what came within five minutes."""
    position, now = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 24, 7, 32, tzinfo=UTC)
    days = {policy: [tick.day for tick in walked(spec("30 2 * * *", policy), position, now)] for policy in (ALL, LATEST, NONE)}
    assert (len(days[ALL]), days[LATEST], days[NONE]) == (24, [date(2026, 11, 23)], [date(2026, 11, 23)])
    assert walked(spec("30 2 * * *", NONE), position, now + timedelta(minutes=10)) == []


def test_a_schedule_may_last_for_ever() -> None:
    """An end that stands for never bounds nothing."""
    position, now = datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)
    assert len(walked(spec("30 2 * * *", end_date="9999-12-31"), position, now)) == 2


@given(st.lists(st.integers(1, 900), min_size=1, max_size=20), st.sampled_from(["*/7 * * * *", "30 2 * * *", "30 1 * * *", "0 0 1 * *"]))
def test_ticks_do_not_depend_on_when_somebody_looked(minutes: list[int], expression: str) -> None:
    """Looking often, seldom or once gives the same ticks, each once, also in an hour that comes twice."""
    begin = now = position = datetime(2026, 10, 30, tzinfo=UTC)
    wanted, seen = spec(expression), []
    for pause in minutes:
        now += timedelta(minutes=pause)
        seen += walked(wanted, position, now)
        position = now
    assert seen == walked(wanted, begin, now)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": specs_pb2.CronTrigger(expression="61 * * * *")}, "cron.expression"),
        ({"cron": specs_pb2.CronTrigger(expression="0 0 30 2 *")}, "cron.expression"),
        ({"cron": specs_pb2.CronTrigger(expression="* * * * * * * *")}, "cron.expression"),
        ({"cron": specs_pb2.CronTrigger(expression="0 0 * * *", time_zone="Mars/Olympus")}, "cron.timeZone"),
        ({"cron": specs_pb2.CronTrigger(expression="0 0 * * *", time_zone="../etc/passwd")}, "cron.timeZone"),
        ({"start_date": "2026-02-30"}, "startDate"),
        ({"end_date": "2026-13-01"}, "endDate"),
        ({"start_date": "0001-01-01"}, "startDate"),
        ({"run_kind": "radar-train", "subject": "eta-midtown"}, "runKind"),
    ],
)
async def test_what_cannot_be_kept_is_refused_with_its_field(shared_plane: ControlPlane, changes: dict[str, Any], field: str) -> None:
    """When it is applied, not when it should tick."""
    async with stubs(shared_plane) as to:
        wanted = schedule(to, **changes)
        model = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Model", metadata=resource_pb2.Metadata(name="eta-midtown"))
        model.model.service, inputs = "eta", [specs_pb2.ModelInput(dataset=TRIPS, days=1)]
        model.model.inputs.extend(inputs)
        with pytest.raises(ArterialError) as caught:
            await to.control.Plan(control.PlanRequest(resources=[model, wanted]))
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [f"resources[1].spec.{field}"]


async def listed(to: Stubs, wanted: resource_pb2.Resource) -> list[pb.Run]:
    """Runs of a schedule, newest first."""
    return list((await to.jobs.ListRuns(pb.ListRunsRequest(schedule=wanted.metadata.name))).runs)


async def declare(to: Stubs, *resources: resource_pb2.Resource) -> None:
    """Applies resources."""
    await to.control.Apply(control.ApplyRequest(resources=resources))


async def dates(to: Stubs, wanted: resource_pb2.Resource, expected: list[str]) -> None:
    """Waits until the schedule's runs are those of the dates, newest first."""

    async def made() -> bool:
        return [run.partition_date for run in await listed(to, wanted)] == expected

    await eventually(made, f"runs of {expected}")


async def test_a_past_start_makes_a_run_for_each_date_once(shared_plane: ControlPlane) -> None:
    """Also when it is applied again, paused and resumed, or deleted and declared again; terms are those of the schedule."""
    async with stubs(shared_plane) as to:
        terms = specs_pb2.RunTerms(max_attempts=5, timeout_seconds=60, max_concurrent=1, memory_mib=512, cpu_milli=1000, tier=3)
        wanted = schedule(to, end_date="2026-11-22", terms=terms)
        await declare(to, wanted)
        await dates(to, wanted, ["2026-11-22", "2026-11-21", "2026-11-20"])
        newest = (await listed(to, wanted))[0]
        assert newest.terms == terms and newest.schedule == wanted.metadata.name
        assert newest.scheduled_for.ToDatetime() == datetime(2026, 11, 23, 2, 30)
        await to.control.DeleteResource(control.DeleteResourceRequest(kind="Schedule", name=wanted.metadata.name))
        wanted.schedule.end_date = "2026-11-23"
        await declare(to, wanted)
        await dates(to, wanted, ["2026-11-23", "2026-11-22", "2026-11-21", "2026-11-20"])


async def test_ready_data_make_a_run_that_reads_them(shared_plane: ControlPlane) -> None:
    """Only when every dataset of the date is ready; what is blocked later suspends the run."""
    async with stubs(shared_plane) as to:
        wanted = schedule(to, data=specs_pb2.DataTrigger(datasets=[TRIPS, PAYMENTS]))
        latest = schedule(to, "-latest", data=specs_pb2.DataTrigger(datasets=[TRIPS]), catch_up=LATEST)
        before = "2026-11-19", "2026-11-23"
        await report(to, *(verdict(dataset, "PASS", 1, day) for day in before for dataset in (TRIPS, PAYMENTS)))
        await report(to, verdict(TRIPS, "PASS", 1), verdict(PAYMENTS, "FAIL", 1))
        await declare(to, wanted, latest)
        await dates(to, wanted, ["2026-11-23"])
        await dates(to, latest, [DAY])
        await report(to, verdict(PAYMENTS, "PASS", 2))
        await dates(to, wanted, [DAY, "2026-11-23"])
        await report(to, verdict(TRIPS, "FAIL", 3, reasons=["half the rows"]))
        run = (await listed(to, wanted))[0]
        assert (run.state, list(run.reasons)) == (pb.RUN_STATE_SUSPENDED, [f"{TRIPS} {DAY} is BLOCKED: half the rows"])


async def test_a_paused_schedule_makes_nothing_until_it_is_resumed(shared_plane: ControlPlane) -> None:
    """And then what its policy says of what it missed."""
    async with stubs(shared_plane) as to:
        paused, other = schedule(to, paused=True, catch_up=LATEST, end_date="2026-11-22"), schedule(to, "-other", end_date="2026-11-20")
        await declare(to, paused, other)
        await dates(to, other, ["2026-11-20"])
        assert await listed(to, paused) == []
        paused.schedule.paused = False
        await declare(to, paused)
        await dates(to, paused, ["2026-11-22"])


async def test_a_long_backfill_is_made_as_its_runs_end(shared_plane: ControlPlane) -> None:
    """So many runs are open at most; those that end make room for later ones."""
    engine = create_async_engine(shared_plane.config.sql.url)
    store = ScheduleStore(engine, max_open=200)
    async with stubs(shared_plane) as to:
        wanted = schedule(to, start_date="2020-01-01", end_date="2024-12-31", paused=True)  # only this test makes its runs
        await declare(to, wanted)

        async def made() -> list[int]:
            counts = []
            while not (step := await store.make(wanted)).held:
                counts.append(len(step.runs))
            return counts

        assert await made() == [100, 100]
        async with engine.begin() as connection:
            query = "UPDATE runs SET state = 'CANCELLED' WHERE schedule = :name AND partition_date < '2020-04-10'"
            await connection.execute(sa.text(query), {"name": wanted.metadata.name})
        assert await made() == [100]
        newest = (await to.jobs.ListRuns(pb.ListRunsRequest(schedule=wanted.metadata.name))).runs[0]
        assert newest.partition_date == (date(2020, 1, 1) + timedelta(days=299)).isoformat()
    await engine.dispose()


async def test_two_replicas_make_each_run_once_and_one_goes_on_when_the_other_is_killed(plane: ControlPlane, tmp_path: Path) -> None:
    """The leader is a process of its own, killed with SIGKILL; the ticks of every second before and after have one run each."""
    port = free_port()
    config = tmp_path / "other.yaml"
    other = {"state_dir": str(tmp_path / "other"), "sql": {"url": plane.config.sql.url}, "rpc": {"port": port}}
    config.write_text(yaml.safe_dump(other))
    async with stubs(plane) as to:
        await plane.stop()
        child = Child.start("other", [sys.executable, "-m", "services.controlplane", "serve", "--config", str(config)], tmp_path / "log")
        there = ControlPlane(plane.config.model_copy(update={"rpc": RpcConfig(port=port)}))
        try:
            await child.healthy(lambda: serving(there.address))
            async with stubs(there, to.name) as too:
                each_second = specs_pb2.CronTrigger(expression="* * * * * *")
                wanted = schedule(to, cron=each_second, start_date="", subject=to.name)
                await declare(too, wanted)

                async def some(at: Stubs, at_least: int) -> bool:
                    return len(await listed(at, wanted)) >= at_least

                await eventually(lambda: some(too, 1), "a run of the first leader")
                await plane.start()
                async with stubs(plane, to.name) as to_plane:
                    await eventually(lambda: some(to_plane, 3), "more runs")
                    await child.stop(signal.SIGKILL)
                    known = len(await listed(to_plane, wanted))
                    await eventually(lambda: some(to_plane, known + 2), "runs of the second leader")
                    moments = [run.scheduled_for.ToSeconds() for run in await listed(to_plane, wanted)]
        finally:
            await child.stop(signal.SIGKILL)
    assert moments == list(range(moments[0], moments[-1] - 1, -1)), "a tick is missing or has two runs"


async def test_an_office_passes_on_when_its_holder_hangs(database_url: str) -> None:
    """The database ends the session that says nothing; the holder, awake again, finds its office gone. Only one leads at a time."""
    contexts, awake = [testing.context() for _ in range(2)], threading.Event()
    elections: list[Election] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def stand(place: int) -> None:
        engine = create_async_engine(database_url)
        loops.append(asyncio.get_running_loop())
        elections.append(Election(engine, "test"))
        await elections[place].run(contexts[place])
        await engine.dispose()

    async def leading(*expected: bool) -> bool:
        return [election.leading for election in elections] == list(expected)

    standing: list[asyncio.Task[None]] = [asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(stand(0))))]
    try:
        await eventually(lambda: leading(True), "the first leader")
        loops[0].call_soon_threadsafe(awake.wait)  # everything in the first process stands still
        standing.append(asyncio.create_task(stand(1)))
        await eventually(lambda: leading(True, True), "the second leader, while the first sleeps")
        awake.set()
        await eventually(lambda: leading(False, True), "the first knows that it does not lead")
    finally:
        awake.set()
        for context, loop in zip(contexts, loops, strict=False):
            loop.call_soon_threadsafe(context.stopping.set)
        await asyncio.gather(*standing)
