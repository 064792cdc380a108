"""Configuration of the radar service."""

from chassis.config import KafkaConfig, KvConfig, LakeConfig, OlapConfig, RpcConfig, ServiceConfig, SqlConfig


class RadarConfig(ServiceConfig):
    """What every role of radar is told."""

    kafka: KafkaConfig
    kv: KvConfig
    sql: SqlConfig
    lake: LakeConfig
    olap: OlapConfig
    # Where checkpoints and model artefacts are kept: folders or an object store.
    checkpoints: LakeConfig
    models: LakeConfig
    rpc: RpcConfig
