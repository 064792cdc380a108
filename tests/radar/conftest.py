"""What the tests of radar share."""

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chassis import kv
from chassis.config import KafkaConfig, KvConfig, LakeConfig, OlapConfig, RpcConfig, SqlConfig
from services.radar.config import RadarConfig
from services.radar.features import AUTHORISED, FEATURES, Payment
from services.radar.velocities import Velocities

SEED = Path(__file__).parents[2] / "deploy" / "resources"
MakePayment = Callable[..., Payment]


@pytest.fixture
async def velocities(redis_url: str) -> AsyncIterator[Velocities]:
    """The online store on real Redis."""
    redis = kv.connect(KvConfig(url=redis_url))
    yield Velocities(redis, FEATURES)
    await redis.aclose()


@pytest.fixture
def radar_config(kafka_config: KafkaConfig, redis_url: str, database_url: str, clickhouse_port: int, tmp_path: Path) -> RadarConfig:
    """All roles on the real engines."""
    return RadarConfig(
        state_dir=tmp_path / "state",
        resources_dir=SEED,
        kafka=kafka_config,
        kv=KvConfig(url=redis_url),
        sql=SqlConfig(url=database_url),
        lake=LakeConfig(root=str(tmp_path / "lake")),
        olap=OlapConfig(port=clickhouse_port),
        checkpoints=LakeConfig(root=str(tmp_path / "checkpoints")),
        models=LakeConfig(root=str(tmp_path / "models")),
        rpc=RpcConfig(port=0, drain_seconds=1),
    )


def payment(
    time_us: int, account: str, instrument: str = "card", device: str = "phone", *, stage: int = AUTHORISED, amount: int = 1000
) -> Payment:
    """A payment event with a random identity."""
    return Payment(uuid.uuid4().bytes, time_us, stage, amount, account, instrument, device, f"payment-{uuid.uuid4().hex[:8]}", 1)
