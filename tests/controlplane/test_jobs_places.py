"""Which worker does what: tiers, sizes, limits, backfills, and runs that make place for others."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import create_async_engine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as pb
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from services.controlplane.jobs import packing, runs
from services.controlplane.jobs.runs import Capacity, Lease, Run, Terms
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import DAY, Stubs, create, get, stubs

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TOTAL = Capacity(8000, 8000)
SIZES = st.tuples(st.integers(0, 9000), st.integers(0, 9000), st.integers(1, 3))


def run(number: int, memory_mib: int = 0, cpu_milli: int = 0, tier: int = 2, waited_seconds: float = 0) -> Run:
    """A run that waits."""
    due = NOW - timedelta(seconds=waited_seconds)
    terms = Terms(memory_mib=memory_mib, cpu_milli=cpu_milli, tier=tier)
    return Run("compact", "raw/trips", "local", date(2026, 11, 24), due, due, number=number, terms=terms)


def running(number: int, worker: str, total: Capacity = TOTAL, seconds: float = 60, **needs: int) -> Run:
    """A run that a worker has been doing for so long."""
    lease = Lease(f"lease-{number}", worker, 60, ("compact",), total)
    return runs.taken(run(number, **needs, waited_seconds=seconds + 1), lease, NOW - timedelta(seconds=seconds))


def test_the_most_important_comes_first_then_what_starves_then_the_largest() -> None:
    """Of equals the oldest."""
    found = [
        run(1, 100),
        run(2, 4000),
        run(3, 0, 6000),
        run(4, 10, tier=3),
        run(5, 10, tier=1),
        run(6, 10, waited_seconds=400),
        run(7, 100),
    ]
    assert [given.number for given in packing.order(found, TOTAL, NOW)] == [5, 6, 3, 2, 1, 7, 4]


def test_a_quarter_is_kept_for_tier_1() -> None:
    """Of each kind of capacity that the worker declares, less what runs of tier 1 use; one that declares nothing does anything."""
    empty, full = packing.room_of(TOTAL, TOTAL), packing.room_of(TOTAL, Capacity(2000, 8000))
    assert packing.fits(run(1, 8000, 8000, tier=1), empty)
    assert packing.fits(run(1, 6000, 6000), empty) and not packing.fits(run(1, 6001), empty)
    assert packing.fits(run(1, 2000, tier=1), full) and not packing.fits(run(1, 1), full)
    assert packing.fits(run(1, 1500), packing.room_of(TOTAL, Capacity(2000, 8000), Capacity(1500, 0)))
    assert not packing.fits(run(1, 1501), packing.room_of(TOTAL, Capacity(2000, 8000), Capacity(1500, 0)))
    nothing, memory = packing.room_of(Capacity(), Capacity()), packing.room_of(Capacity(200, 0), Capacity(200, 0))
    assert packing.fits(run(1, 99999, 99999), nothing) and packing.fits(run(1, 100, 99999), memory)


@given(SIZES, st.lists(st.tuples(SIZES, st.sampled_from(["a", "b"])), max_size=12))
def test_stopping_runs_makes_place_and_stops_none_in_vain(
    wanted: tuple[int, int, int], held: list[tuple[tuple[int, int, int], str]]
) -> None:
    """Only runs of tier 3 of one worker; afterwards the run fits; without the first of them it would not."""
    memory, cpu, _ = wanted
    waiting = run(100, memory, cpu, tier=1)
    there = [running(n, worker, memory_mib=size[0] // 4, cpu_milli=size[1] // 4, tier=size[2]) for n, (size, worker) in enumerate(held)]
    offer = packing.preemption(waiting, there, NOW)
    if offer is None:
        return
    assert {(victim.worker, victim.terms.tier) for victim in offer.victims} == {(offer.worker, 3)}

    def left(stopped: list[Run]) -> Capacity:
        kept = [other.terms for other in there if other.worker == offer.worker and other not in stopped]
        return Capacity(8000 - sum(terms.memory_mib for terms in kept), 8000 - sum(terms.cpu_milli for terms in kept))

    assert packing.fits(waiting, packing.room_of(TOTAL, left(list(offer.victims))))
    assert not packing.fits(waiting, packing.room_of(TOTAL, left([])))


def test_the_place_is_made_where_least_is_lost() -> None:
    """Fewest runs, then the least time; a run of tier 2, or a worker that does not take the kind, is left alone."""
    large, small = running(1, "a", memory_mib=8000, tier=3, seconds=900), [running(n, "b", memory_mib=3000, tier=3) for n in (2, 3)]
    waiting = run(9, 6000, tier=1)
    assert packing.preemption(waiting, [large, *small], NOW) == packing.Preemption("a", [large])
    young = running(4, "c", memory_mib=8000, tier=3, seconds=5)
    assert packing.preemption(waiting, [large, young], NOW) == packing.Preemption("c", [young])
    assert packing.preemption(waiting, [running(5, "a", memory_mib=8000, tier=2)], NOW) is None
    assert packing.preemption(waiting, [replace(young, worker_kinds=("vacuum",))], NOW) is None
    bare = running(6, "d", Capacity(), tier=3)
    assert packing.preemption(waiting, [bare], NOW) == packing.Preemption("d", [bare])


async def ask(to: Stubs, worker: str, free: int, total: int = 8000) -> pb.TakeRunResponse:
    """A worker with so much memory free asks for work."""
    request = pb.TakeRunRequest(worker=worker, cell=to.cell, kinds=["compact"], lease_seconds=60)
    request.free.memory_mib, request.total.memory_mib = free, total
    reply: pb.TakeRunResponse = await to.jobs.TakeRun(request)
    return reply


async def wanted(to: Stubs, subject: str, **terms: Any) -> str:
    """Asks for a run on terms; its id."""
    return (await create(to, "compact", subject, terms=specs_pb2.RunTerms(**terms))).run.run_id


async def test_a_worker_takes_what_fits_into_what_it_has_free(shared_plane: ControlPlane) -> None:
    """The largest first, nothing that is too large, and nothing at all when it is full; older workers declare nothing."""
    async with stubs(shared_plane) as to:
        small, large, huge = [await wanted(to, name, memory_mib=size) for name, size in (("s", 1000), ("l", 4000), ("h", 7000))]
        assert (await ask(to, "a", 8000)).run.run_id == large
        assert (await ask(to, "a", 4000)).run.run_id == small
        assert not (await ask(to, "a", 3000)).HasField("run")
        assert not (await ask(to, "b", 8000)).HasField("run"), "7000 do not fit beside what is kept for tier 1"
        assert (await ask(to, "c", 16000, 16000)).run.run_id == huge


async def test_so_many_of_a_subject_run_at_once_as_it_allows(shared_plane: ControlPlane) -> None:
    """Others pass by those that wait; one that ends lets the next begin."""
    async with stubs(shared_plane) as to:
        request = pb.CreateRunRequest(kind="compact", subject="s", cell=to.cell, partition_date="2026-11-01")
        request.terms.max_concurrent = 2
        made = await to.jobs.CreateRuns(pb.CreateRunsRequest(run=request, last_date="2026-11-04"))
        other = await wanted(to, "other")
        first, second, third = [await ask(to, "a", 8000) for _ in range(3)]
        assert [reply.run.run_id for reply in (first, second, third)] == [*made.run_ids[:2], other]
        assert not (await ask(to, "a", 8000)).HasField("run")
        await to.jobs.FinishRun(pb.FinishRunRequest(run_id=second.run.run_id, lease=second.lease, succeeded=True))
        assert (await ask(to, "a", 8000)).run.run_id == made.run_ids[2]


async def test_a_run_of_tier_1_stops_one_of_tier_3_and_gets_its_place(plane: ControlPlane) -> None:
    """The worker hears why; meanwhile it is given nothing else; the stopped run comes back and has lost no attempt."""
    async with stubs(plane) as to:
        engine = create_async_engine(plane.config.sql.url)
        spare = await wanted(to, "spare", memory_mib=6000, tier=3, max_attempts=1)
        taken = await ask(to, "a", 8000)
        assert taken.run.run_id == spare
        urgent = await wanted(to, "urgent", memory_mib=4000, tier=1)
        small = await wanted(to, "small", memory_mib=100)
        assert not (await ask(to, "a", 2000)).HasField("run")
        async with engine.begin() as connection:
            await connection.execute(sa.text("UPDATE runs SET due_at = due_at - interval '1 minute' WHERE tier = 1"))

        async def stopped() -> bool:
            return (await get(to, spare)).state == pb.RUN_STATE_PENDING

        await eventually(stopped, "the end of the attempt")
        with pytest.raises(ArterialError) as caught:
            await to.jobs.KeepRun(pb.KeepRunRequest(run_id=spare, lease=taken.lease))
        assert caught.value.reason is Reason.CONFLICT and f"make place for {urgent}" in caught.value.message
        assert (await ask(to, "a", 8000)).run.run_id == urgent
        assert (await ask(to, "a", 4000)).run.run_id == small
        async with engine.begin() as connection:
            await connection.execute(sa.text("UPDATE runs SET due_at = now()"))
        again = await ask(to, "b", 8000)
        assert (again.run.run_id, again.run.attempt) == (spare, 2)
        await engine.dispose()


async def test_a_run_that_starves_is_kept_a_place_by_one_worker(plane: ControlPlane) -> None:
    """Which takes no smaller runs until it fits; other workers go on."""
    async with stubs(plane) as to:
        engine = create_async_engine(plane.config.sql.url)
        large = await wanted(to, "large", memory_mib=5000)
        small = [await wanted(to, f"small-{number}", memory_mib=500) for number in range(3)]
        async with engine.begin() as connection:
            await connection.execute(sa.text("UPDATE runs SET due_at = due_at - interval '1 hour' WHERE memory_mib = 5000"))
        assert not (await ask(to, "a", 4000)).HasField("run")
        assert (await ask(to, "b", 4000)).run.run_id in small
        assert (await ask(to, "a", 8000)).run.run_id == large
        assert (await ask(to, "a", 3000)).run.run_id in small
        await engine.dispose()


async def test_an_attempt_that_takes_too_long_is_ended(shared_plane: ControlPlane) -> None:
    """Without anybody asking; its worker is told at its next KeepRun."""
    async with stubs(shared_plane) as to:
        run_id = await wanted(to, "slow", timeout_seconds=1, max_attempts=1)
        taken = await ask(to, "a", 8000)

        async def ended() -> bool:
            return (await get(to, run_id)).state == pb.RUN_STATE_FAILED

        await eventually(ended, "the end of the run")
        assert list((await get(to, run_id)).reasons) == ["attempt 1: took longer than 1 s"]
        with pytest.raises(ArterialError) as caught:
            await to.jobs.KeepRun(pb.KeepRunRequest(run_id=run_id, lease=taken.lease))
        assert "took longer than 1 s" in caught.value.message


async def test_a_backfill_asks_for_each_date_once(shared_plane: ControlPlane) -> None:
    """More dates than one transaction; repeated, it makes none; a range that is too long or backwards is refused."""
    async with stubs(shared_plane) as to:
        request = pb.CreateRunRequest(kind="compact", subject="s", cell=to.cell, partition_date="2026-01-01")
        made = await to.jobs.CreateRuns(pb.CreateRunsRequest(run=request, last_date="2026-07-19"))
        assert (len(made.run_ids), made.existing) == (200, 0)
        repeated = await to.jobs.CreateRuns(pb.CreateRunsRequest(run=request, last_date="2026-07-20"))
        assert (len(repeated.run_ids), repeated.existing) == (1, 200)
        for last, field in (("2036-07-20", "last_date"), ("2025-12-31", "")):
            with pytest.raises(ArterialError) as caught:
                await to.jobs.CreateRuns(pb.CreateRunsRequest(run=request, last_date=last))
            assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_run_has_the_tier_of_what_it_makes(shared_plane: ControlPlane) -> None:
    """The most important of what is declared; unless it asks for another, or makes nothing that is declared."""
    async with stubs(shared_plane) as to:
        names = [f"lake/derived/{to.name}-{tier}" for tier in (3, 2)]
        for name, tier in zip(names, (3, 2), strict=True):
            spec = specs_pb2.DatasetSpec(description="d", tier=tier)
            metadata = resource_pb2.Metadata(name=name)
            resource = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Dataset", metadata=metadata, dataset=spec)
            await to.control.Apply(control.ApplyRequest(resources=[resource]))
        made = [
            (await create(to, "sum", str(place), produces=produces, terms=specs_pb2.RunTerms(tier=tier))).run.terms.tier
            for place, (produces, tier) in enumerate([(names[:1], 0), (names, 0), (names, 1), ([], 0), (["lake/other"], 0)])
        ]
    assert made == [3, 2, 1, 2, 2]


async def test_a_run_that_reads_waits_for_what_it_reads(shared_plane: ControlPlane) -> None:
    """Although it trains no model: whoever asks for it says what it reads."""
    async with stubs(shared_plane) as to:
        reply = await create(to, "report", "daily", inputs=[specs_pb2.ModelInput(dataset="lake/curated/trips", days=1)])
        assert list(reply.run.reasons) == [f"lake/curated/trips {DAY} is PENDING: nothing was reported yet"]
