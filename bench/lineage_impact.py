"""GetImpact of a column, over the wire, on 10,000 datasets of 20 columns: p99 in ms, against recursive SQL over the same tables."""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as pb
from arterial.api.lineage.v1alpha1 import lineage_service_pb2_grpc
from bench.engines import sql_service
from bench.result import report
from chassis import sql
from chassis.config import SqlConfig
from chassis.rpc.client import channel

LAYERS, PER_LAYER, COLUMNS = 10, 1000, 20
# Of jobs whose rows depend on a column: these make a column hit whole datasets.
FILTERS = 0.1
QUESTIONS = 300
BATCH = 200
NAMESPACE = "lake://bench"
RECURSIVE = """
WITH RECURSIVE hit(node_id, column_name) AS (
  SELECT node_id, CAST(:column AS text) FROM nodes WHERE NOT is_job AND namespace = :namespace AND name = :name
  UNION
  SELECT next.node_id, next.column_name FROM hit CROSS JOIN LATERAL (
    SELECT target_id, target_column FROM column_edges WHERE source_id = hit.node_id AND source_column = hit.column_name
    UNION ALL
    SELECT made.node_id, '' FROM dataset_edges AS read JOIN dataset_edges AS made ON made.job_id = read.job_id AND made.made
    WHERE NOT read.made AND read.node_id = hit.node_id AND hit.column_name = ''
  ) AS next(node_id, column_name)
)
SELECT DISTINCT nodes.name, nodes.owner, nodes.tier FROM hit JOIN nodes USING (node_id) WHERE nodes.name != :name
"""


def name(layer: int, number: int) -> str:
    """Name of a dataset."""
    return f"layer{layer}/table{number}"


def events(random: np.random.Generator) -> Iterator[str]:
    """A job per dataset of the later layers: each reads one to three of the layer before, each column comes from one or two columns."""
    for layer in range(1, LAYERS):
        for number in range(PER_LAYER):
            sources = [name(layer - 1, int(source)) for source in random.integers(0, PER_LAYER, random.integers(1, 4))]
            yield json.dumps(event(f"job.{name(layer, number)}", sources, name(layer, number), random))


def event(job: str, sources: list[str], target: str, random: np.random.Generator) -> dict[str, object]:
    """A run event with column lineage."""

    def inputs(count: int) -> list[dict[str, object]]:
        return [
            {"namespace": NAMESPACE, "name": sources[random.integers(len(sources))], "field": f"c{random.integers(COLUMNS)}"}
            for _ in range(count)
        ]

    fields = {f"c{column}": {"inputFields": inputs(int(random.integers(1, 3)))} for column in range(COLUMNS)}
    lineage = {"fields": fields, "dataset": inputs(1) if random.random() < FILTERS else []}
    schema = {"fields": [{"name": f"c{column}", "type": "Int64"} for column in range(COLUMNS)]}
    return {
        "eventType": "COMPLETE",
        "eventTime": "2026-01-01T00:00:00Z",
        "producer": "urn:bench",
        "schemaURL": "urn:openlineage",
        "run": {"runId": str(uuid.uuid4())},
        "job": {"namespace": "arterial://bench", "name": job},
        "inputs": [{"namespace": NAMESPACE, "name": source} for source in sources],
        "outputs": [{"namespace": NAMESPACE, "name": target, "facets": {"columnLineage": lineage, "schema": schema}}],
    }


async def main() -> None:
    """Fills the service, asks it, and asks the database the same."""
    async with sql_service("lineage") as service:
        engine = sql.engine(SqlConfig(url=service.url))
        try:
            async with channel(service.address) as connection:
                stub = lineage_service_pb2_grpc.LineageServiceStub(connection)
                began = time.perf_counter()
                batch: list[str] = []
                for text in events(np.random.default_rng(7)):
                    batch.append(text)
                    if len(batch) == BATCH:
                        await stub.PutEvents(pb.PutEventsRequest(events=batch), timeout=60)
                        batch = []
                seconds = time.perf_counter() - began
                found, baseline, sizes = await asked(stub, engine)
        finally:
            await engine.dispose()
    report(
        "lineage_impact",
        float(np.percentile(found, 99)),
        "ms (p99)",
        baseline=("recursive SQL over the same tables, p99", float(np.percentile(baseline, 99))),
        p50_ms=float(np.median(found)),
        baseline_p50_ms=float(np.median(baseline)),
        hit_p50=float(np.median(sizes)),
        hit_max=float(max(sizes)),
        events_per_second=(LAYERS - 1) * PER_LAYER / seconds,
    )


async def asked(stub: Any, engine: AsyncEngine) -> tuple[list[float], list[float], list[int]]:
    """Milliseconds of each question to the service and to the database, and datasets hit; both must name the same."""
    random = np.random.default_rng(11)
    found, baseline, sizes = [], [], []
    async with engine.connect() as connection:
        await connection.execute(sa.text("ANALYZE"))
        for _ in range(QUESTIONS):
            dataset, column = name(int(random.integers(LAYERS // 2)), int(random.integers(PER_LAYER))), f"c{random.integers(COLUMNS)}"
            began = time.perf_counter()
            try:
                reply = await stub.GetImpact(pb.GetImpactRequest(name=f"lake/{dataset}", columns=[column]))
            except Exception as error:  # a column that nobody reads, of a dataset that nobody makes, is not known
                assert "NOT_FOUND" in str(error), error
                continue
            found.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            asked_for = {"namespace": NAMESPACE, "name": dataset, "column": column}
            rows = (await connection.execute(sa.text(RECURSIVE), asked_for)).all()
            baseline.append((time.perf_counter() - began) * 1000)
            assert {node.name for node in reply.nodes} == {f"lake/{row.name}" for row in rows}
            sizes.append(len(rows))
    return found, baseline, sizes


if __name__ == "__main__":
    asyncio.run(main())
