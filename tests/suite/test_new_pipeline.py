"""A new user's path on the running stack: one file becomes a pipeline, whose schema is broken, widened and rolled back."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiokafka import TopicPartition
from deltalake import DeltaTable
from sqlalchemy.ext.asyncio import create_async_engine

from arterial.channel import connect
from chassis import kafka, olap
from chassis.config import KafkaConfig, OlapConfig
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from chassis.topics import Topic
from cli import audit
from deploy.local.supervisor import Stack
from tests.terminal import Terminal

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE, ADOPTED = EXAMPLES / "scooter_rides", EXAMPLES / "adopted_orders"
TOPIC = "scooter_rides_v1"


async def test_one_file_becomes_a_pipeline(
    stack: Stack, addresses: dict[str, str], tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    """Plan, apply, publish, see it in lake, OLAP, Redis and lineage; break the schema, see it refused; widen it; roll it back."""
    terminal = Terminal(addresses, tmp_path, capsys)
    files = tmp_path / "scooter_rides"
    shutil.copytree(EXAMPLE, files)
    planned = await terminal.document("plan", str(files))
    assert {change["action"] for change in planned["changes"]} == {"ACTION_CREATE"}
    await terminal.text("apply", str(files), "--message", "scooters")
    assert "0 of" in await terminal.text("plan", str(files))
    for resource in (f"Topic/{TOPIC}", "Feature/scooter-demand", "Pipeline/raw-scooter-rides"):
        await terminal.text("wait", resource, "--for", "ready")
    await terminal.text("publish", TOPIC, str(files / "rides.jsonl"))

    async def computed() -> bool:
        demand = await terminal.document("feature", "scooter-demand", "7", status=None)
        ended = await terminal.document("feature", "scooter-rides-ended", "7", status=None)
        means = (demand.get("unlocks_600s"), ended.get("mean_distance_m_300s"), ended.get("fares_minor_3600s"))
        return means == ("2", "1250", "492")

    await eventually(computed, "features in Redis")

    async def kept(rows: int) -> bool:
        table = str(stack.places.lake / "curated" / TOPIC)
        if not DeltaTable.is_deltatable(table):
            return False
        client = await olap.connect(OlapConfig(port=stack.places.ports["clickhouse"]))
        try:
            there = await client.query(f"SELECT count() FROM system.tables WHERE database = 'live' AND name = '{TOPIC}'")
            live = await client.query(f"SELECT count() FROM live.{TOPIC}") if there.result_rows[0][0] else None
        finally:
            await client.close()
        return DeltaTable(table).count() == rows and live is not None and live.result_rows[0][0] == rows

    await eventually(lambda: kept(5), "five rides in the lake and in OLAP")

    async def known() -> bool:
        try:
            told = await terminal.document("lineage", "impact", f"kafka/{TOPIC}", "--column", "fare_minor")
        except ArterialError:
            return False
        names = {node["name"] for node in told["nodes"]}
        return {f"lake/curated/{TOPIC}", f"olap/live/{TOPIC}", "feature/scooter-rides-ended"} <= names

    await eventually(known, "lineage of the new pipeline")
    await labelled(terminal, files)
    await broken_widened_and_rolled_back(terminal, files)
    await removed(terminal)
    await dropped_and_declared_again(stack, terminal)


async def labelled(terminal: Terminal, files: Path) -> None:
    """A change that nothing of the data plane acts on is in force nevertheless, wherever it is reported on."""
    declared = files / "scooter_rides.yaml"
    declared.write_text(declared.read_text().replace("labels: {", "labels: {season: summer, "))
    await terminal.text("apply", str(files), "--message", "summer")
    pipelines = (f"Pipeline/{role}-scooter-rides" for role in ("raw", "curated", "live"))
    for resource in (f"Topic/{TOPIC}", f"Schema/{TOPIC}", "Feature/scooter-demand", "Feature/scooter-rides-ended", *pipelines):
        await terminal.text("wait", resource, "--for", "ready")


async def broken_widened_and_rolled_back(terminal: Terminal, files: Path) -> None:
    """An incompatible schema is a one-way door, whose plan says who would feel it; a compatible one is taken; and back."""
    schema = files / "scooter_rides.proto"
    good = schema.read_text()
    first = (await terminal.document("get", "Schema", TOPIC))["metadata"]["resourceVersion"]
    schema.write_text(good.replace("int64 fare_minor = 12;", "string fare_minor = 12;"))
    (change,) = [change for change in await planned(terminal, files) if change["action"] != "ACTION_NONE"]
    (door,) = [field for field in change["fields"] if field.get("oneWayDoor")]
    assert door["path"] == "spec.definition" and "fare_minor" in door["reason"]
    assert {"feature/scooter-rides-ended", f"lake/curated/{TOPIC}"} <= {each["name"] for each in change["dependents"]}
    refusal = await refused(terminal, files)
    (why,) = refusal.violations
    assert refusal.reason is Reason.REFUSED and "fare_minor" in why.description and "felt by feature/scooter" in why.description
    schema.write_text(good.replace("string currency_code = 13;", "string currency_code = 13;\n  int64 tip_minor = 14;"))
    await terminal.text("apply", str(files), "--message", "tips")
    status = (await terminal.document("get", "Schema", TOPIC))["status"]["schema"]
    assert status["version"] == 2
    (files / "tip.jsonl").write_text('{"cityId": 9, "sequence": 1, "rideId": "r-9", "state": "STATE_LOCKED", "tipMinor": 50}\n')
    await terminal.text("publish", TOPIC, str(files / "tip.jsonl"))
    await terminal.text("rollback", "Schema", TOPIC, "--to", first, "--approve", f"Schema/{TOPIC}:spec.definition")
    back = (await terminal.document("get", "Schema", TOPIC))["status"]["schema"]
    assert back["version"] == 1 and back["schemaId"] != status["schemaId"]
    history = await terminal.document("history", "Schema", TOPIC)
    assert [change["message"] for change in history if "change" in change][:4] == [f"rollback to {first}", "tips", "summer", "scooters"]


async def planned(terminal: Terminal, files: Path) -> list[Any]:
    """The changes of a plan that knows who would feel them: it waits for lineage for two seconds alone."""
    plans: list[Any] = []

    async def known() -> bool:
        plans.append(await terminal.document("plan", str(files)))
        return not plans[-1]["dependentsUnknown"]

    await eventually(known, "a plan that knows who would feel it")
    return list(plans[-1]["changes"])


async def refused(terminal: Terminal, files: Path) -> ArterialError:
    """The refusal of an apply that knows who would feel it."""
    refusals: list[ArterialError] = []

    async def known() -> bool:
        with pytest.raises(ArterialError, match="one-way doors") as caught:
            await terminal.text("apply", str(files))
        refusals.append(caught.value)
        return "who would feel it is not known" not in caught.value.message

    await eventually(known, "a refusal that knows who would feel it")
    return refusals[-1]


async def removed(terminal: Terminal) -> None:
    """What is declared no longer goes by approval, door by door; its topic takes nothing more, and the data stay for their retention."""
    words = ("delete", "-f", str(EXAMPLE))
    with pytest.raises(ArterialError, match="one-way doors") as caught:
        await terminal.text(*words)
    doors = caught.value.metadata["approvals"].split(",")
    assert f"Topic/{TOPIC}:deleted" in doors and f"Dataset/lake/curated/{TOPIC}:deleted" in doors
    told = await terminal.document(*words, "--approve", ",".join(doors), "--message", "no scooters")
    assert sorted(each["drops"] for each in told["retirements"]) == ["records", "statistics", "tables"]
    with pytest.raises(ArterialError) as caught:
        await terminal.text("publish", TOPIC, str(EXAMPLE / "rides.jsonl"))
    assert caught.value.reason is Reason.NOT_FOUND

    async def forgotten() -> bool:
        told = await terminal.document("lineage", "impact", f"kafka/{TOPIC}")
        return "nodes" not in told

    await eventually(forgotten, "lineage without the pipeline")


async def dropped_and_declared_again(stack: Stack, terminal: Terminal) -> None:
    """Two years later everything of it is gone; declared again, it begins anew and misses nothing."""
    address = stack.places.address("postgres")
    engine = create_async_engine(f"postgresql+asyncpg://controlplane@{address}/controlplane")
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE runs SET due_at = now() WHERE subject = :subject"), {"subject": f"Topic/{TOPIC}"})
    await engine.dispose()

    async def dropped() -> bool:
        found = [run for run in await terminal.document("runs", "list") if run["subject"] == f"Topic/{TOPIC}"]
        return len(found) == 3 and {run["state"] for run in found} == {"RUN_STATE_SUCCEEDED"}

    await eventually(dropped, "records, tables and statistics dropped")
    tables = [str(stack.places.lake / zone / TOPIC) for zone in ("raw", "curated")]
    assert not any(DeltaTable.is_deltatable(table) for table in tables)
    await terminal.text("apply", str(EXAMPLE), "--message", "scooters are back")
    await terminal.text("wait", f"Topic/{TOPIC}", "--for", "ready")

    async def published() -> bool:
        try:
            await terminal.text("publish", TOPIC, str(EXAMPLE / "rides.jsonl"))
        except ArterialError as error:
            assert error.reason is Reason.INVALID_REQUEST and "not a declared topic" in error.message
            return False
        return True

    await eventually(published, "every process of ingestion has heard of the topic")

    async def kept() -> bool:
        client = await olap.connect(OlapConfig(port=stack.places.ports["clickhouse"]))
        try:
            there = await client.query(f"SELECT count() FROM system.tables WHERE database = 'live' AND name = '{TOPIC}'")
            live = (await client.query(f"SELECT count() FROM live.{TOPIC}")).result_rows[0][0] if there.result_rows[0][0] else 0
        finally:
            await client.close()
        return all(DeltaTable.is_deltatable(table) and DeltaTable(table).count() == 5 for table in tables) and live == 5

    await eventually(kept, "five rides in new tables")


async def test_a_companys_own_topic_enters_as_it_is(
    stack: Stack, addresses: dict[str, str], tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    """JSON without framing that was there before: rows of the lake, a repeat once in curated, what is no order dead."""
    terminal, topic = Terminal(addresses, tmp_path, capsys), Topic("company.orders", "", "order_id", partitions=3)
    config = KafkaConfig(bootstrap=addresses["kafka"])
    await kafka.ensure_topics(config, [topic])
    orders = [{"order_id": f"o-{number}", "step": 1, "created_ms": int(time.time() * 1000), "city": 7, "total": 9.5} for number in range(4)]
    values = [json.dumps(order).encode() for order in (*orders, orders[0])] + [b"no order"]
    producer = kafka.producer(config)
    await producer.start()
    for partition in range(topic.partitions):
        await kafka.send_all(producer, TopicPartition(topic.name, partition), [(None, value) for value in values[partition::3]])
    await producer.stop()
    await terminal.text("apply", str(ADOPTED))

    async def kept() -> bool:
        tables = [str(stack.places.lake / zone / topic.name) for zone in ("raw", "curated")]
        if not all(DeltaTable.is_deltatable(table) for table in tables):
            return False
        raw, curated = (DeltaTable(table).to_pyarrow_table() for table in tables)
        dead = [error for error in raw["_error"].to_pylist() if error]
        return raw.num_rows == 6 and len(dead) == 1 and sorted(curated["order_id"].to_pylist()) == [f"o-{number}" for number in range(4)]

    await eventually(kept, "the orders in the lake")

    async def heard_of() -> bool:
        async with connect(addresses["ingestion"]) as channel:
            with pytest.raises(ArterialError) as caught:
                await audit.ask(channel, {}, topics=[topic.name])
        return "cannot be audited" in caught.value.message

    await eventually(heard_of, "the process that audits has heard of the topic, too, which cannot be audited")
