"""Configuration of the radar service."""

from typing import ClassVar

from chassis.config import KafkaConfig, KvConfig, LakeConfig, RpcConfig, SqlConfig
from chassis.learning.training import WorkConfig


class RadarConfig(WorkConfig):
    """What every role of radar is told."""

    watches: ClassVar[frozenset[str]] = frozenset({"Model", "Pipeline", "RiskPolicy", "Schema", "Topic"})
    kafka: KafkaConfig
    kv: KvConfig
    sql: SqlConfig
    # Where checkpoints are kept: a folder or an object store.
    checkpoints: LakeConfig
    rpc: RpcConfig
