"""Backup and restore: everything at one moment, whole or not at all, also from an earlier version."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import backup_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import backup_service_pb2_grpc
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import model_service_pb2 as models
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as partitions
from chassis import sql
from chassis.config import RpcConfig, SqlConfig
from chassis.errors import ArterialError, Reason
from chassis.rpc.client import channel
from deploy.local import postgres
from deploy.local.child import free_port
from services.controlplane.__main__ import MIGRATIONS
from services.controlplane.backup import backup_file, catalogue
from services.controlplane.backup.backup_file import BackupError, Header, Table, Writer
from services.controlplane.backup.backup_store import BackupStore
from services.controlplane.config import ControlPlaneConfig
from tests.controlplane.conftest import SEED, ControlPlane
from tests.controlplane.stubs import DAY, PAYMENTS, TRIPS, Stubs, create, get, model, report, schedule, stubs, take, verdict
from tests.terminal import Terminal


@asynccontextmanager
async def empty_plane(port: int, name: str, folder: Path, resources: Path | None = None) -> AsyncIterator[ControlPlane]:
    """A control plane on an empty database, with resources of its own or without."""
    url = await postgres.create_database(port, name)
    rpc = RpcConfig(port=free_port(), drain_seconds=1)
    running = ControlPlane(ControlPlaneConfig(state_dir=folder, sql=SqlConfig(url=url), rpc=rpc, resources_dir=resources))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def everything(url: str) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        names = [table.name for table in await catalogue.tables(connection)]
        found = {name: (await connection.scalars(sa.text(f'SELECT t::text FROM "{name}" AS t ORDER BY 1'))).all() for name in names}
    await engine.dispose()
    return {name: list(rows) for name, rows in found.items()}


def slo() -> resource_pb2.Resource:
    """An objective of trips."""
    spec = specs_pb2.SloSpec(dataset=TRIPS, indicator=specs_pb2.SLO_INDICATOR_FRESHNESS)
    metadata = resource_pb2.Metadata(name="trips-fresh", owner="maps")
    return resource_pb2.Resource(api_version="arterial.dev/v1", kind="Slo", metadata=metadata, slo=spec)


async def fill(to: Stubs) -> str:
    """Something of everything; the id of a run that is running."""
    await to.control.Apply(control.ApplyRequest(resources=[model(to), schedule(to, paused=True), slo()]))
    await report(to, verdict(TRIPS, "PASS", 1, datetime.now(UTC).date().isoformat(), aspect="FRESHNESS", value=7.5))
    await report(to, verdict(TRIPS, "FAIL", 1, reasons=["half\tthe\\rows\nä"]), verdict(PAYMENTS, "PASS", 2, aspect="FRESHNESS"))
    where = {"cell": to.cell, "dataset": TRIPS, "partition_date": DAY, "reason": "known"}
    await to.partitions.OverridePartition(partitions.OverridePartitionRequest(state=partitions.PARTITION_STATE_READY, **where))
    version = models.ModelVersion(model=to.model, version="1", path="1", sha256="a" * 64, metrics={"mae": 50})
    await to.models.RegisterVersion(models.RegisterVersionRequest(version=version))
    run_id = (await create(to, "compact", "raw/trips", inputs=[specs_pb2.ModelInput(dataset=TRIPS, days=1)])).run.run_id
    taken = await take(to, "compact", lease_seconds=600)
    await to.jobs.KeepRun(jobs.KeepRunRequest(run_id=run_id, lease=taken.lease, log=["half way"]))
    return run_id


async def backed_up(engine: AsyncEngine) -> io.BytesIO:
    """A backup of a database."""
    file = io.BytesIO()

    async def write(data: bytes) -> None:
        file.write(data)

    await BackupStore(engine, MIGRATIONS).back_up(write)
    return file


async def test_every_row_of_every_table_comes_back(plane: ControlPlane, postgres_port: int) -> None:
    """From one database at rest to another: nothing else writes to them."""
    async with stubs(plane) as to:
        await fill(to)
    await plane.stop()
    before = await everything(plane.config.sql.url)
    assert all(before[name] for name in ("resources", "changes", "runs", "run_log", "partition_overrides", "model_versions", "slo_samples"))
    url = await postgres.create_database(postgres_port, f"{to.name}_rows")
    full, empty = create_async_engine(plane.config.sql.url), create_async_engine(url)
    await sql.migrate(empty, MIGRATIONS)
    rows, _ = await BackupStore(empty, MIGRATIONS).restore(await backed_up(full))
    for engine in (full, empty):
        await engine.dispose()
    assert rows == {name: len(lines) for name, lines in before.items()}
    after = await everything(url)
    assert {name: lines for name, lines in after.items() if lines != before[name]} == {}
    await plane.start()


async def test_a_control_plane_is_backed_up_and_restored_by_one_command_each(
    plane: ControlPlane, postgres_port: int, tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    """Runs go on, numbers go on after it, and watchers of the new one see what it holds; what is not empty is not written over."""
    file = tmp_path / "state.backup"
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    async with stubs(plane) as to:
        run_id = await fill(to)
        assert "bytes" in await Terminal({"controlplane": plane.address}, tmp_path / "one", capsys).text("backup", str(file))
    async with empty_plane(postgres_port, f"{to.name}_restored", tmp_path / "restored") as restored, stubs(restored, to.name) as new:
        watch = new.control.Watch(control.WatchRequest(kinds=["Schedule"]))
        assert (await anext(aiter(watch))).type == control.WatchResponse.TYPE_RESYNC
        told = await Terminal({"controlplane": restored.address}, tmp_path / "two", capsys).text("restore", str(file))
        assert "run_log" in told
        assert (await get(new, run_id)).state == jobs.RUN_STATE_RUNNING
        assert int((await create(new, "compact", "other")).run.run_id[4:]) > int(run_id[4:])
        async for event in watch:
            if event.type == control.WatchResponse.TYPE_PUT:
                assert event.resource.kind == "Schedule"
                break
        with pytest.raises(ArterialError) as caught:
            await Terminal({"controlplane": restored.address}, tmp_path / "two", capsys).text("restore", str(file))
        assert caught.value.reason is Reason.REFUSED and "not empty" in caught.value.message
        with pytest.raises(ArterialError) as caught:
            await Terminal({"controlplane": restored.address}, tmp_path / "two", capsys).text("restore", str(tmp_path))
        assert caught.value.reason is Reason.INVALID_REQUEST and str(tmp_path) in caught.value.message


async def pieces(*data: bytes) -> AsyncIterator[pb.RestoreRequest]:
    """A file, piece by piece."""
    for piece in data:
        yield pb.RestoreRequest(data=piece)


async def test_a_backup_is_of_one_moment_and_bad_files_change_nothing(plane: ControlPlane, postgres_port: int, tmp_path: Path) -> None:
    """What is written after the first piece is not in it; damaged, cut off and later files are refused with their reason."""
    engine = create_async_engine(plane.config.sql.url)
    written: list[bytes] = []
    run_ids: list[str] = []
    async with stubs(plane) as to:
        run_ids.append((await create(to, "compact", "first")).run.run_id)

        async def write(data: bytes) -> None:
            if not written:
                run_ids.append((await create(to, "compact", "later")).run.run_id)
            written.append(data)

        await BackupStore(engine, MIGRATIONS).back_up(write)
    await engine.dispose()
    whole = b"".join(written)
    header = backup_file.header_of(io.BytesIO(whole))
    bad = {
        Reason.INVALID_REQUEST: [whole[:-1], whole[: len(whole) // 2], whole[:200] + b"?" + whole[201:], whole + b"more", b"not a backup"],
        Reason.REFUSED: [_whole(Header("9999", "", {})), _whole(Header(header.revision, "", {}, format=2))],
    }
    async with empty_plane(postgres_port, f"{to.name}_bad", tmp_path / "control", SEED) as restored, stubs(restored, to.name) as new:
        empty = await everything(restored.config.sql.url)
        async with channel(restored.address) as connection:
            stub: Any = backup_service_pb2_grpc.BackupServiceStub(connection)
            for reason, files in bad.items():
                for file in files:
                    with pytest.raises(ArterialError) as caught:
                        await stub.Restore(pieces(file))
                    assert caught.value.reason is reason
            assert await everything(restored.config.sql.url) == empty
            await stub.Restore(pieces(whole[:100], whole[100:]))
        assert (await get(new, run_ids[0])).subject == "first"
        with pytest.raises(ArterialError) as caught:
            await get(new, run_ids[1])
        assert caught.value.reason is Reason.NOT_FOUND


def _whole(header: Header) -> bytes:
    writer = Writer()
    return writer.header(header) + writer.end({})


async def test_a_backup_of_an_earlier_version_is_migrated(postgres_port: int, tmp_path: Path) -> None:
    """Rows of the first tables that had partitions become what follows from them today."""
    name = f"earlier_{tmp_path.name[-8:].replace('-', '_')}"
    engine = create_async_engine(await postgres.create_database(postgres_port, name))
    async with engine.begin() as connection:
        await connection.run_sync(sql.upgrade, MIGRATIONS, "0002")
        values = f"'local', '{TRIPS}', '{DAY}', 'BLOCKED', ARRAY['half the rows'], '{{}}', 7, now()"
        await connection.execute(sa.text(f"INSERT INTO partitions VALUES ({values})"))
    file = await backed_up(engine)
    await engine.dispose()
    async with empty_plane(postgres_port, f"{name}_now", tmp_path / "control") as restored, stubs(restored) as new:
        async with channel(restored.address) as to:
            stub: Any = backup_service_pb2_grpc.BackupServiceStub(to)
            reply = await stub.Restore(pieces(file.getvalue()))
        assert (reply.revision, reply.rows["partitions"]) == ("0002", 1)
        request = partitions.GetPartitionRequest(cell="local", dataset=TRIPS, partition_date=DAY)
        found = await new.partitions.GetPartition(request)
        assert (found.partition.state, list(found.partition.reasons)) == (partitions.PARTITION_STATE_BLOCKED, ["half the rows"])
        assert [(given.aspect, given.verdict) for given in found.verdicts] == [(partitions.ASPECT_QUALITY, partitions.VERDICT_FAIL)]
        await create(new, "compact", "raw/trips")


WHOLE = _whole(Header("0001", "2026-11-24", {"runs_number_seq": 7}))


@given(place=st.integers(0, len(WHOLE) - 1), change=st.integers(1, 255), cut=st.booleans())
def test_no_damage_goes_unseen(place: int, change: int, cut: bool) -> None:
    """Any byte changed, or the file cut off anywhere."""
    damaged = WHOLE[:place] if cut else WHOLE[:place] + bytes([WHOLE[place] ^ change]) + WHOLE[place + 1 :]
    with pytest.raises(BackupError):
        file = io.BytesIO(damaged)
        backup_file.verify(file)
        backup_file.header_of(file)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.lists(st.binary(max_size=200), max_size=3), max_size=4))
def test_what_is_written_is_read(content: dict[str, list[bytes]]) -> None:
    """Tables in their order with their data, and the numbers of their rows at the end."""
    writer = Writer()
    data = writer.header(Header("0001", "", {}))
    for name, blocks in content.items():
        data += writer.table(Table(name, ["a", "b"])) + b"".join(map(writer.data, blocks))
    file = io.BytesIO(data + writer.end(dict.fromkeys(content, 1)))
    backup_file.verify(file)
    assert backup_file.header_of(file) == Header("0001", "", {})
    expected: list[object] = [item for name, blocks in content.items() for item in (Table(name, ["a", "b"]), *blocks)]
    assert list(backup_file.tables(file)) == [*expected, dict.fromkeys(content, 1)]
