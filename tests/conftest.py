"""The real engines, started once per session on free loopback ports, when a test first asks for one."""

import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from chassis.config import KafkaConfig, LakeConfig, OlapConfig
from chassis.olap import Olap
from deploy.local import clickhouse, kafka, postgres, redis
from deploy.local.child import LOOPBACK, free_port
from deploy.local.supervisor import Stack
from tests.collector import Collector

# A busy machine is no failure: no test is timed.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
# As those of a process do: what a command prints is not mixed with what services that run beside it log.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


@pytest.fixture(scope="session")
def engines_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the engines keep their data."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
async def kafka_config(engines_dir: Path) -> AsyncIterator[KafkaConfig]:
    """A running Kafka."""
    port = free_port()
    child = await kafka.start(engines_dir / "kafka", port)
    yield KafkaConfig(bootstrap=f"{LOOPBACK}:{port}")
    await child.stop()


@pytest.fixture(scope="session")
async def redis_url(engines_dir: Path) -> AsyncIterator[str]:
    """A running Redis."""
    port = free_port()
    child = await redis.start(engines_dir / "redis", port)
    yield f"redis://{LOOPBACK}:{port}"
    await child.stop()


@pytest.fixture(scope="session")
async def postgres_port(engines_dir: Path) -> AsyncIterator[int]:
    """A running PostgreSQL."""
    port = free_port()
    child = await postgres.start(engines_dir / "postgres", port)
    yield port
    # SIGTERM would wait for every connection that a stopped test left behind.
    await child.stop(signal.SIGINT)


@pytest.fixture
async def database_url(postgres_port: int) -> str:
    """A database of its own for every test."""
    return await postgres.create_database(postgres_port, f"test_{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
async def clickhouse_port(engines_dir: Path) -> AsyncIterator[int]:
    """The running ClickHouse engine."""
    port = free_port()
    child = await clickhouse.start(engines_dir / "clickhouse", port)
    yield port
    await child.stop()


@pytest.fixture
def olap_config(clickhouse_port: int) -> OlapConfig:
    """A database of its own for every test."""
    return OlapConfig(port=clickhouse_port, database=f"test_{uuid.uuid4().hex[:12]}")


@pytest.fixture
async def olap(olap_config: OlapConfig) -> AsyncIterator[Olap]:
    """A client of the engine, with a database of its own."""
    client = Olap(olap_config)
    yield client
    await client.close()


@pytest.fixture
def lake_config(tmp_path: Path) -> LakeConfig:
    """An empty lake."""
    return LakeConfig(root=str(tmp_path / "lake"))


@pytest.fixture(scope="session")
async def collector() -> AsyncIterator[Collector]:
    """Receives the traces of the stack."""
    async with Collector() as receiver:
        yield receiver


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole stack come last: its twenty processes would slow down all that come after them."""
    items.sort(key=lambda item: "stack" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[Stack]:
    """The whole stack, as `arterial up` starts it, with its traces sent to the collector."""
    running = Stack(tmp_path_factory.mktemp("stack"), otlp_endpoint=collector.endpoint)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture(scope="session")
def addresses(stack: Stack) -> dict[str, str]:
    """Where the stack's services listen, by name."""
    return stack.places.addresses()
