"""ListRuns over the wire, 100,000 runs in history, any filter: p99 in ms, against the last page by OFFSET, in SQL alone."""

import asyncio
import time
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from arterial.api.controlplane.v1alpha1 import job_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import job_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from bench.engines import sql_service
from bench.result import report
from chassis import sql
from chassis.config import SqlConfig
from chassis.rpc.client import channel

RUNS, KINDS, SUBJECTS, PAGE, PAGES, ROUNDS = 100_000, 20, 300, 100, 5, 4
# Kind 0 has half of the runs, kind 1 a quarter, ...; few are open, some failed, one kind of the last has no failed run at all.
FILL = """
INSERT INTO runs (kind, subject, cell, partition_date, state, reasons, attempt, failures, max_attempts, worker, lease, lease_seconds,
  finished_lease, due_at, created_at, started_at, ended_at, outputs, was_suspended, schedule, scheduled_for)
SELECT 'kind-' || least(floor(-log(2, random()::numeric)), :kinds - 1), 'subject-' || n % :subjects, 'local', date '2020-01-01' + n / 100,
  CASE WHEN n > :runs - 200 THEN 'PENDING' WHEN n % 97 = 0 THEN 'FAILED' WHEN n % 89 = 0 THEN 'CANCELLED' ELSE 'SUCCEEDED' END,
  CASE WHEN n % 97 = 0 THEN ARRAY['attempt 3: ' || repeat('the disk is full ', 5)] ELSE '{}' END, 1, 0, 3, 'worker', '', 30, '',
  now(), now(), now(), now(), '{"version": "20261124-3f2a"}', false, 'schedule-' || n % 50, to_timestamp(n)
FROM generate_series(1, :runs) AS n
"""


async def main() -> None:
    """Fills the database, asks the service, and asks the database the other way."""
    async with sql_service("controlplane") as service:
        engine = sql.engine(SqlConfig(url=service.url))
        try:
            async with engine.begin() as connection:
                await connection.execute(sa.text(FILL), {"runs": RUNS, "kinds": KINDS, "subjects": SUBJECTS})
                await connection.execute(sa.text("ANALYZE runs"))
            async with channel(service.address) as connection:
                stub = job_service_pb2_grpc.JobServiceStub(connection)
                found = [await asked(stub, wanted) for _ in range(ROUNDS) for wanted in filters()]
            baseline = [await by_offset(engine, wanted) for wanted in filters()]
        finally:
            await engine.dispose()
    milliseconds = [each for one in found for each in one]
    slowest = max(zip(found, [describe(wanted) for wanted in filters()] * ROUNDS, strict=True), key=lambda pair: max(pair[0]))
    report(
        "run_listing",
        float(np.percentile(milliseconds, 99)),
        "ms (p99)",
        baseline=("the last page by OFFSET, in SQL alone, p99", float(np.percentile([each for one in baseline for each in one], 99))),
        p50_ms=float(np.median(milliseconds)),
        max_ms=max(milliseconds),
        slowest=slowest[1],
        pages=len(milliseconds),
        runs=RUNS,
    )


def filters() -> list[pb.ListRunsRequest]:
    """All combinations of frequent and rare kinds, subjects, states and schedules, or any; some match nothing."""
    return [
        pb.ListRunsRequest(kind=kind, subject=subject, state=state, schedule=schedule)
        for kind in ("", "kind-0", "kind-12", "kind-none")
        for subject in ("", "subject-7")
        for state in (pb.RUN_STATE_UNSPECIFIED, pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_RUNNING)
        for schedule in ("", "schedule-7", "schedule-8")
    ]


def describe(wanted: pb.ListRunsRequest) -> str:
    """A filter, for people."""
    return " ".join(filter(None, (wanted.kind, wanted.subject, pb.RunState.Name(wanted.state), wanted.schedule)))


async def asked(stub: Any, wanted: pb.ListRunsRequest) -> list[float]:
    """Milliseconds of each of the first pages."""
    request, taken = pb.ListRunsRequest(), []
    request.CopyFrom(wanted)
    request.page.CopyFrom(page_pb2.PageRequest(page_size=PAGE))
    for _ in range(PAGES):
        began = time.perf_counter()
        reply = await stub.ListRuns(request)
        taken.append((time.perf_counter() - began) * 1000)
        request.page.page_token = reply.page.next_page_token
        if not request.page.page_token:
            break
    return taken


async def by_offset(engine: AsyncEngine, wanted: pb.ListRunsRequest) -> list[float]:
    """Milliseconds of the last page, as clients reach it that count their way there, and of the count that says where it is."""
    state = pb.RunState.Name(wanted.state).removeprefix("RUN_STATE_").replace("UNSPECIFIED", "")
    given = {"kind": wanted.kind, "subject": wanted.subject, "state": state, "schedule": wanted.schedule}
    where = " AND ".join(f"{name} = :{name}" for name, value in given.items() if value) or "true"
    values = {name: value for name, value in given.items() if value}
    taken = []
    async with engine.connect() as connection:
        for _ in range(PAGES):
            began = time.perf_counter()
            total = await connection.scalar(sa.text(f"SELECT count(*) FROM runs WHERE {where}"), values)
            offset = max(0, int(total or 0) - PAGE)
            query = f"SELECT * FROM runs WHERE {where} ORDER BY number DESC OFFSET {offset} LIMIT {PAGE}"
            (await connection.execute(sa.text(query), values)).all()
            taken.append((time.perf_counter() - began) * 1000)
    return taken


if __name__ == "__main__":
    asyncio.run(main())
