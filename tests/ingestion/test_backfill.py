"""Backfill: files of any topic into that topic's raw table, once, from where an earlier run stopped."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from arterial.api.events.v1.payment_event_pb2 import PaymentEvent
from chassis.config import CellConfig, LakeConfig
from chassis.errors import ArterialError
from chassis.recordfiles import open_file, write_records
from chassis.testing import ManualClock
from chassis.wire import Schemas
from services.ingestion.backfill import load
from services.ingestion.raw import RawTable
from tests.events import trip_event
from tests.ingestion.conftest import SEED
from tests.ingestion.raw_tables import TOPIC, rows_of


def payment(number: int) -> bytes:
    """A payment event, serialised."""
    event = PaymentEvent(event_id=number.to_bytes(16), account_id=f"account-{number}", city_id=1)
    event.event_time.FromSeconds(1_700_000_000 + number)
    return event.SerializeToString()


class StoppingClock(ManualClock):
    """Stops a backfill at its first commit."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.stopping = asyncio.Event()

    def now(self) -> float:
        self.stopping.set()
        return super().now()


def backfill(tmp_path: Path, lake: LakeConfig, files: Sequence[Path]) -> "subprocess.CompletedProcess[str]":
    """Runs the role as the command line does."""
    config = {
        "state_dir": str(tmp_path / "state"),
        "resources_dir": str(SEED),
        "lake": {"root": lake.root},
        "kafka": {"bootstrap": "127.0.0.1:1"},
        "olap": {},
        "rpc": {"port": 0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "services.ingestion", "backfill", "--config", str(tmp_path / "config.yaml")]
    environment = {**os.environ, "ARTERIAL_BACKFILL_FILES": json.dumps([str(file) for file in files])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_files_of_several_topics_go_each_into_its_own_table(tmp_path: Path, lake_config: LakeConfig) -> None:
    """One process, one line per commit; values that cannot be decoded are dead rows; a second run changes nothing."""
    trips, payments = tmp_path / "trips.parquet", tmp_path / "payments.parquet"
    names = [
        write_records(trips, "trip_events_v2", [trip_event().SerializeToString() for _ in range(3)]),
        write_records(payments, "payment_events_v1", [payment(1), b"\xff\xff", payment(2)]),
    ]
    done = backfill(tmp_path, lake_config, [trips, payments])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} 3 3" for name in names]
    rows = rows_of(lake_config, "raw/payment_events_v1")
    assert sorted((row["_offset"], row["_topic"], row["dead"]) for row in rows) == [
        (0, names[1], False),
        (1, names[1], True),
        (2, names[1], False),
    ]
    assert len(rows_of(lake_config, "raw/trip_events_v2")) == 3
    again = backfill(tmp_path, lake_config, [trips, payments])
    assert (again.returncode, again.stdout) == (0, "") and len(rows_of(lake_config, "raw/trip_events_v2")) == 3


def test_nothing_is_loaded_if_one_file_is_of_an_unknown_topic(tmp_path: Path, lake_config: LakeConfig) -> None:
    """The error names the topic."""
    write_records(tmp_path / "good.parquet", "trip_events_v2", [trip_event().SerializeToString()])
    write_records(tmp_path / "odd.parquet", "odd_v1", [b"x"])
    done = backfill(tmp_path, lake_config, [tmp_path / "good.parquet", tmp_path / "odd.parquet"])
    assert done.returncode == 1 and "odd_v1, which is not declared" in done.stderr
    assert rows_of(lake_config, "raw/trip_events_v2") == []


async def test_a_correction_names_what_is_there_and_not_yet_superseded(tmp_path: Path, lake_config: LakeConfig) -> None:
    """Refused otherwise, with nothing written; loaded again it changes nothing, and neither does the superseded file."""
    table = RawTable(CellConfig(), lake_config, TOPIC, Schemas())

    async def loading(name: str, supersedes: Sequence[str] = (), *, rows: int = 2) -> str:
        path = tmp_path / name
        if not path.exists():
            write_records(path, TOPIC.name, [trip_event().SerializeToString() for _ in range(rows)], supersedes)
        file = open_file(path)
        await load(table, file, ManualClock(1_700_000_000), asyncio.Event())
        return file.source

    bad = await loading("bad.parquet")
    version = table.table.version
    with pytest.raises(ArterialError, match="is not in raw/trip_events_v2"):
        await loading("early.parquet", [f"file:{'0' * 64}"])
    assert table.table.version == version
    correction = await loading("correction.parquet", [bad])
    version = table.table.version
    with pytest.raises(ArterialError, match="superseded by another source already"):
        await loading("second.parquet", [bad])
    await loading("correction.parquet")
    await loading("bad.parquet")
    assert table.table.version == version
    await loading("nothing.parquet", [correction], rows=0)
    assert table.progress(f"superseded/{correction}", 0, 0) is None and table.table.progress(f"superseded/{correction}") == 1


async def test_a_superseded_file_is_not_loaded_to_its_end(tmp_path: Path, lake_config: LakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a correction overtook while it was being loaded gets no further row."""
    monkeypatch.setattr("chassis.recordfiles.BATCH_ROWS", 2)
    table = RawTable(CellConfig(), lake_config, TOPIC, Schemas())
    write_records(tmp_path / "bad.parquet", TOPIC.name, [trip_event().SerializeToString() for _ in range(4)])
    bad = open_file(tmp_path / "bad.parquet")
    clock = StoppingClock(1_700_000_000)
    await load(table, bad, clock, clock.stopping)
    write_records(tmp_path / "part.parquet", TOPIC.name, [trip_event().SerializeToString()], [bad.source])
    await load(table, open_file(tmp_path / "part.parquet"), ManualClock(1_700_000_000), asyncio.Event())
    await load(table, bad, ManualClock(1_700_000_000), asyncio.Event())
    assert table.progress(bad.source, 0, 0) == 2
