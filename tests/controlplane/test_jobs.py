"""Runs over the wire on real PostgreSQL: leases, takeover, the gate, paging, restart."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as partitions
from arterial.api.types.v1 import page_pb2
from chassis import sql
from chassis.config import RpcConfig
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from deploy.local.child import free_port
from services.controlplane.jobs import taking
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import DAY, PAYMENTS, TRIPS, Stubs, create, get, model, report, stubs, take, taken, verdict

SUSPENDED, PENDING, RUNNING = pb.RUN_STATE_SUSPENDED, pb.RUN_STATE_PENDING, pb.RUN_STATE_RUNNING


async def declare(to: Stubs) -> None:
    """Declares the model."""
    await to.control.Apply(control.ApplyRequest(resources=[model(to)]))


async def test_a_training_run_waits_for_its_partitions_and_comes_back_by_itself(shared_plane: ControlPlane) -> None:
    """Created, suspended with reasons, released by a verdict without any worker, run, finished; that it was suspended stays true."""
    async with stubs(shared_plane) as to:
        await declare(to)
        run = (await create(to, "pricing-train", to.model)).run
        assert (run.state, list(run.reasons)) == (
            SUSPENDED,
            [f"{dataset} {DAY} is PENDING: nothing was reported yet" for dataset in (TRIPS, PAYMENTS)],
        )
        assert not (await take(to, "pricing-train")).HasField("run")
        day_before = "2026-11-23"
        assert await report(to, verdict(TRIPS, "PASS", 7), verdict(TRIPS, "FAIL", 7, day_before, ["half the rows"])) == 2
        assert await report(to, verdict(PAYMENTS, "NOT_JUDGED", 3)) == 1
        run = await get(to, run.run_id)
        assert (run.state, list(run.reasons)) == (SUSPENDED, [f"{TRIPS} {day_before} is BLOCKED: half the rows"])
        assert await report(to, verdict(TRIPS, "PASS", 6, day_before)) == 0, "a verdict on an older version than the known one"
        assert await report(to, verdict(TRIPS, "PASS", 8, day_before)) == 1
        run = await get(to, run.run_id)
        assert (run.state, list(run.reasons), run.was_suspended) == (PENDING, [], True)
        taken = await take(to, "pricing-train")
        assert (taken.run.run_id, taken.run.state, taken.run.attempt) == (run.run_id, RUNNING, 1)
        finish = pb.FinishRunRequest(run_id=run.run_id, lease=taken.lease, succeeded=True, outputs={"version": "1"}, log=["done"])
        done = (await to.jobs.FinishRun(finish)).run
        assert (done.state, dict(done.outputs), done.was_suspended) == (pb.RUN_STATE_SUCCEEDED, {"version": "1"}, True)
        assert (await to.jobs.FinishRun(finish)).run == done
        log = await to.jobs.ListRunLog(pb.ListRunLogRequest(run_id=run.run_id))
        assert [(line.attempt, line.text) for line in log.lines] == [(1, "done")]


async def test_a_running_run_whose_input_is_blocked_is_suspended_and_its_worker_learns_it(shared_plane: ControlPlane) -> None:
    """KeepRun and FinishRun are refused; the run comes back when the partition does, as another attempt that costs none."""
    async with stubs(shared_plane) as to:
        await declare(to)
        await report(to, verdict(TRIPS, "PASS", 1), verdict(PAYMENTS, "PASS", 1))
        run = (await create(to, "pricing-train", to.model, max_attempts=1)).run
        taken = await take(to, "pricing-train")
        await to.jobs.KeepRun(pb.KeepRunRequest(run_id=run.run_id, lease=taken.lease, log=["reading"]))
        await report(to, verdict(PAYMENTS, "FAIL", 2, reasons=["amounts doubled"]))
        for request in (
            to.jobs.KeepRun(pb.KeepRunRequest(run_id=run.run_id, lease=taken.lease)),
            to.jobs.FinishRun(pb.FinishRunRequest(run_id=run.run_id, lease=taken.lease, succeeded=True)),
        ):
            with pytest.raises(ArterialError) as caught:
                await request
            assert caught.value.reason is Reason.CONFLICT
        now = await get(to, run.run_id)
        assert (now.state, list(now.reasons)) == (SUSPENDED, [f"{PAYMENTS} {DAY} is BLOCKED: amounts doubled"])
        await report(to, verdict(PAYMENTS, "PASS", 3))
        again = await take(to, "pricing-train")
        assert (again.run.run_id, again.run.attempt) == (run.run_id, 2)


async def run_out(plane: ControlPlane, run_id: str) -> None:
    """Lets the lease of a run run out at once."""
    engine = create_async_engine(plane.config.sql.url)
    async with engine.begin() as connection:
        query = sa.text("UPDATE runs SET lease_expires_at = now() WHERE number = :number")
        await connection.execute(query, {"number": int(run_id.removeprefix("run-"))})
    await engine.dispose()


async def test_a_run_whose_lease_ran_out_is_taken_over_as_the_next_attempt(shared_plane: ControlPlane) -> None:
    """The former worker is told; without attempts left the run has failed, without anybody asking."""
    async with stubs(shared_plane) as to:
        run = (await create(to, "compact", "raw/trips", max_attempts=2)).run
        first = await take(to, "compact", worker="first")
        assert not (await take(to, "compact")).HasField("run")
        await run_out(shared_plane, run.run_id)
        second = await taken(to, "compact", worker="second", lease_seconds=1)
        assert (second.run.attempt, second.run.worker) == (2, "second")
        with pytest.raises(ArterialError) as caught:
            await to.jobs.KeepRun(pb.KeepRunRequest(run_id=run.run_id, lease=first.lease))
        assert caught.value.reason is Reason.CONFLICT

        async def failed() -> bool:
            return (await get(to, run.run_id)).state == pb.RUN_STATE_FAILED

        await eventually(failed, "the end of the run")
        assert list((await get(to, run.run_id)).reasons) == ["attempt 2: the lease of second ran out"]


async def test_a_failed_attempt_is_tried_again_after_a_pause(shared_plane: ControlPlane) -> None:
    """Not before it is due; the reason is shown meanwhile; the log has what the attempt wrote, once."""
    async with stubs(shared_plane) as to:
        run = (await create(to, "compact", "raw/trips", max_attempts=2)).run
        taken = await take(to, "compact")
        finish = pb.FinishRunRequest(run_id=run.run_id, lease=taken.lease, reason="disk full", log=["a", "b\0" + "x" * 5000])
        for _ in range(2):
            failed = (await to.jobs.FinishRun(finish)).run
            assert (failed.state, list(failed.reasons)) == (PENDING, ["attempt 1: disk full"])
        due = failed.due_at.ToDatetime()
        assert due - failed.started_at.ToDatetime() >= timedelta(seconds=1)
        again = await take(to, "compact")
        assert not again.HasField("run") or again.run.started_at.ToDatetime() >= due
        lines = (await to.jobs.ListRunLog(pb.ListRunLogRequest(run_id=run.run_id))).lines
        assert [len(line.text) for line in lines] == [1, 4096] and lines[1].text.startswith("b\ufffdx") and lines[1].text.endswith("…")


async def test_replicas_and_workers_never_give_a_run_twice(shared_plane: ControlPlane) -> None:
    """Two replicas over one database, eight workers, 24 runs: each run once."""
    apart = {"rpc": RpcConfig(port=free_port(), drain_seconds=1), "registry": None}
    other = ControlPlane(shared_plane.config.model_copy(update=apart))
    async with stubs(shared_plane) as to:
        await other.start()
        async with stubs(other, to.name) as too:
            runs = {(await create(to, "compact", f"table/{number}")).run.run_id for number in range(24)}
            taken: list[str] = []

            async def work(at: Stubs) -> None:
                while (reply := await take(at, "compact")).HasField("run"):
                    taken.append(reply.run.run_id)

            await asyncio.gather(*(work(at) for at in (to, too) * 4))
            # A worker that meets only rows that others hold goes away empty-handed, and asks again.
            await work(to)
        await other.stop()
    assert sorted(taken) == sorted(runs)


async def test_who_hangs_while_giving_out_a_run_holds_up_the_others_for_a_while_only(plane: ControlPlane) -> None:
    """The database ends its transaction, and what it held is free."""
    async with stubs(plane) as to:
        await create(to, "compact", "raw/trips")
        engine = sql.engine(plane.config.sql, idle_in_transaction_seconds=1)
        async with engine.connect() as hung:
            await taking.one_at_a_time(hung, to.cell)
            request = pb.TakeRunRequest(worker="w", cell=to.cell, kinds=["compact"], lease_seconds=60)
            assert (await to.jobs.TakeRun(request, timeout=60)).HasField("run")
            with pytest.raises(DBAPIError):
                await hung.execute(sa.select(1))
            await hung.invalidate()
        await engine.dispose()


async def test_asking_again_gives_the_run_that_is_there(shared_plane: ControlPlane) -> None:
    """Also when asked at once by many; `again` makes another, but only after the end of the last."""
    async with stubs(shared_plane) as to:
        replies = await asyncio.gather(*(create(to, "compact", "raw/trips") for _ in range(8)))
        assert len({reply.run.run_id for reply in replies}) == 1 and sum(reply.created for reply in replies) == 1
        assert not (await create(to, "compact", "raw/trips", again=True)).created
        cancelled = (await to.jobs.CancelRun(pb.CancelRunRequest(run_id=replies[0].run.run_id, reason="no need"))).run
        assert (cancelled.state, list(cancelled.reasons)) == (pb.RUN_STATE_CANCELLED, ["cancelled: no need"])
        assert not (await create(to, "compact", "raw/trips")).created
        assert (await create(to, "compact", "raw/trips", again=True)).created


async def test_a_run_that_ended_badly_can_be_done_again(shared_plane: ControlPlane) -> None:
    """With all its attempts; whoever had it before has not; not one that succeeded, and not beside one that was asked for since."""

    async def retry(run_id: str) -> pb.Run:
        request = pb.RetryRunRequest(run_id=run_id, reason="the disk is empty again")
        run: pb.Run = (await to.jobs.RetryRun(request, metadata=(("arterial-actor", "kim"),))).run
        return run

    async with stubs(shared_plane) as to:
        run = (await create(to, "compact", "raw/trips", max_attempts=1)).run
        assert await retry(run.run_id) == run
        taken = await take(to, "compact")
        failed = pb.FinishRunRequest(run_id=run.run_id, lease=taken.lease, reason="disk full", log=["half way"])
        assert (await to.jobs.FinishRun(failed)).run.state == pb.RUN_STATE_FAILED
        again = await retry(run.run_id)
        assert (again.state, list(again.reasons)) == (PENDING, ["retried by kim: the disk is empty again"])
        taken = await take(to, "compact")
        assert (taken.run.run_id, taken.run.attempt) == (run.run_id, 2)
        await to.jobs.CancelRun(pb.CancelRunRequest(run_id=run.run_id, reason="no need"))
        assert (await retry(run.run_id)).state == PENDING
        with pytest.raises(ArterialError) as caught:
            await to.jobs.KeepRun(pb.KeepRunRequest(run_id=run.run_id, lease=taken.lease))
        assert caught.value.reason is Reason.CONFLICT
        taken = await take(to, "compact")
        await to.jobs.FinishRun(pb.FinishRunRequest(run_id=run.run_id, lease=taken.lease, succeeded=True))
        with pytest.raises(ArterialError, match="has succeeded") as caught:
            await retry(run.run_id)
        assert caught.value.reason is Reason.REFUSED
        log = (await to.jobs.ListRunLog(pb.ListRunLogRequest(run_id=run.run_id))).lines
        assert [line.text for line in log] == ["half way", *["retried by kim: the disk is empty again"] * 2]


async def test_a_run_is_not_done_again_beside_one_that_was_asked_for_since(shared_plane: ControlPlane) -> None:
    """Also if both are asked for at once."""
    async with stubs(shared_plane) as to:
        run = (await create(to, "compact", "raw/trips")).run
        await to.jobs.CancelRun(pb.CancelRunRequest(run_id=run.run_id, reason="no need"))
        retry = pb.RetryRunRequest(run_id=run.run_id, reason="needed")
        asking = [to.jobs.RetryRun(retry), *(create(to, "compact", "raw/trips", again=True) for _ in range(4))]
        await asyncio.gather(*asking, return_exceptions=True)
        opened = (await to.jobs.ListRuns(pb.ListRunsRequest(subject="raw/trips", kind="compact"))).runs
        (only,) = [each for each in opened if each.cell == to.cell and each.state == PENDING]
        await to.jobs.CancelRun(pb.CancelRunRequest(run_id=only.run_id, reason="no need"))
        newer = (await create(to, "compact", "raw/trips", again=True)).run
        with pytest.raises(ArterialError, match=f"{newer.run_id} was asked for since") as caught:
            await to.jobs.RetryRun(retry)
        assert caught.value.reason is Reason.REFUSED


async def test_a_retried_run_waits_for_its_partitions(shared_plane: ControlPlane) -> None:
    """As any other."""
    async with stubs(shared_plane) as to:
        await declare(to)
        run = (await create(to, "pricing-train", to.model)).run
        await to.jobs.CancelRun(pb.CancelRunRequest(run_id=run.run_id, reason="no need"))
        again = (await to.jobs.RetryRun(pb.RetryRunRequest(run_id=run.run_id, reason="needed"))).run
        assert again.state == SUSPENDED and TRIPS in again.reasons[0]


async def test_a_cancelled_worker_hears_of_it(shared_plane: ControlPlane) -> None:
    """By KeepRun; what it finishes is not counted."""
    async with stubs(shared_plane) as to:
        run = (await create(to, "compact", "raw/trips")).run
        taken = await take(to, "compact")
        assert not (await to.jobs.KeepRun(pb.KeepRunRequest(run_id=run.run_id, lease=taken.lease))).cancelled
        await to.jobs.CancelRun(pb.CancelRunRequest(run_id=run.run_id, reason="no need"))
        assert (await to.jobs.KeepRun(pb.KeepRunRequest(run_id=run.run_id, lease=taken.lease))).cancelled
        with pytest.raises(ArterialError) as caught:
            await to.jobs.FinishRun(pb.FinishRunRequest(run_id=run.run_id, lease=taken.lease, succeeded=True))
        assert caught.value.reason is Reason.CONFLICT


async def test_what_cannot_run_is_refused(shared_plane: ControlPlane) -> None:
    """A model that is not declared, a kind that is not its own, a day of no calendar."""
    async with stubs(shared_plane) as to:
        await declare(to)
        for kind, subject, reason in (("x-train", "none", Reason.NOT_FOUND), ("eta-train", to.model, Reason.INVALID_REQUEST)):
            with pytest.raises(ArterialError) as caught:
                await create(to, kind, subject)
            assert caught.value.reason is reason
        with pytest.raises(ArterialError) as caught:
            await to.jobs.CreateRun(pb.CreateRunRequest(kind="a", subject="b", cell=to.cell, partition_date="2026-02-30"))
        assert [violation.field for violation in caught.value.violations] == ["partition_date"]


async def test_a_changed_model_reconsiders_its_runs(shared_plane: ControlPlane) -> None:
    """A run that waits for an input is released when the model no longer reads it, without worker or verdict."""
    async with stubs(shared_plane) as to:
        await declare(to)
        await report(to, verdict(TRIPS, "PASS", 1))
        run = (await create(to, "pricing-train", to.model)).run
        assert run.state == SUSPENDED
        less = model(to)
        del less.model.inputs[1]
        await to.control.Apply(control.ApplyRequest(resources=[less]))

        async def released() -> bool:
            return (await get(to, run.run_id)).state == PENDING

        await eventually(released, "the release")


async def test_lists_are_paged_by_key_and_filtered(shared_plane: ControlPlane) -> None:
    """A run that is created meanwhile moves no page; a token of another list is refused; partitions come newest first."""
    async with stubs(shared_plane) as to:
        kind = f"compact-{to.name}"
        made = [(await create(to, kind, f"table/{number}")).run.run_id for number in range(5)]
        await create(to, "vacuum", "table/1")
        found, token = [], ""
        while True:
            page = page_pb2.PageRequest(page_size=2, page_token=token)
            reply = await to.jobs.ListRuns(pb.ListRunsRequest(kind=kind, state=PENDING, page=page))
            found += [run.run_id for run in reply.runs]
            await create(to, kind, f"later/{len(found)}")
            if not reply.page.next_page_token:
                break
            token = reply.page.next_page_token
        assert found == made[::-1]
        with pytest.raises(ArterialError) as caught:
            await to.jobs.ListRuns(pb.ListRunsRequest(page=page_pb2.PageRequest(page_token=token)))
        assert caught.value.reason is Reason.INVALID_PAGE_TOKEN
        days = [f"2026-11-{day}" for day in (20, 22, 21)]
        await report(to, *(verdict(dataset, "PASS", 1, day) for day in days for dataset in (TRIPS, PAYMENTS)))
        request = partitions.ListPartitionsRequest(cell=to.cell, page=page_pb2.PageRequest(page_size=4))
        first = await to.partitions.ListPartitions(request)
        request.page.page_token = first.page.next_page_token
        rest = await to.partitions.ListPartitions(request)
        listed = [(partition.partition_date, partition.dataset) for partition in (*first.partitions, *rest.partitions)]
        assert listed == sorted(((day, dataset) for day in days for dataset in (TRIPS, PAYMENTS)), reverse=True)
        assert not rest.page.next_page_token


async def test_a_restart_loses_nothing(plane: ControlPlane) -> None:
    """Runs, leases, logs and marks are as they were."""
    async with stubs(plane) as to:
        await report(to, verdict(TRIPS, "UNKNOWN", 4))
        await create(to, "compact", "raw/trips")
        taken = await take(to, "compact")
        await to.jobs.KeepRun(pb.KeepRunRequest(run_id=taken.run.run_id, lease=taken.lease, log=["half way"]))
    await plane.stop()
    await plane.start()
    async with stubs(plane, to.name) as to:
        await to.jobs.KeepRun(pb.KeepRunRequest(run_id=taken.run.run_id, lease=taken.lease, log=["almost"]))
        log = await to.jobs.ListRunLog(pb.ListRunLogRequest(run_id=taken.run.run_id))
        assert [line.text for line in log.lines] == ["half way", "almost"]
        request = partitions.GetPartitionRequest(cell=to.cell, dataset=TRIPS, partition_date=DAY)
        found = (await to.partitions.GetPartition(request)).partition
        assert (found.state, found.table_version) == (partitions.PARTITION_STATE_UNKNOWN, 4)


async def test_an_empty_partition_is_pending(shared_plane: ControlPlane) -> None:
    """What nobody reported is not ready."""
    async with stubs(shared_plane) as to:
        request = partitions.GetPartitionRequest(cell=to.cell, dataset=TRIPS, partition_date=DAY)
        assert (await to.partitions.GetPartition(request)).partition.state == partitions.PARTITION_STATE_PENDING


async def test_a_long_history_is_listed_by_index(plane: ControlPlane) -> None:
    """Every filter of the list, and the search for work, reads few rows of a long history: PostgreSQL's own plan says so."""
    async with stubs(plane):
        engine = create_async_engine(plane.config.sql.url)
        columns = (
            "kind, subject, cell, partition_date, state, reasons, attempt, failures, max_attempts, worker, lease, lease_seconds, "
            "finished_lease, due_at, created_at, outputs, was_suspended"
        )
        async with engine.begin() as connection:
            await connection.execute(
                sa.text(
                    f"INSERT INTO runs ({columns}) SELECT 'k' || n % 50, 's' || n % 500, 'local', date '2020-01-01' + n / 100, "
                    "'SUCCEEDED', '{}', 1, 0, 3, '', '', 0, '', now(), now(), '{}', false FROM generate_series(1, 30000) n"
                )
            )
            await connection.execute(sa.text("ANALYZE runs"))
            for where in ("true", "kind = 'k7'", "subject = 's499'", "state = 'FAILED'", "kind = 'k7' AND subject = 's7'", "number < 5000"):
                query = f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM runs WHERE {where} ORDER BY number DESC LIMIT 101"
                ((plan,),) = (await connection.execute(sa.text(query))).all()
                assert "Seq Scan" not in str(plan), where
        await engine.dispose()
