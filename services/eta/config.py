"""Configuration of the eta service."""

from chassis.config import KafkaConfig, KvConfig, LakeConfig, OlapConfig, RpcConfig, ServiceConfig


class EtaConfig(ServiceConfig):
    """What every role of eta is told."""

    kafka: KafkaConfig
    kv: KvConfig
    # Training reads the lake through the OLAP engine.
    lake: LakeConfig
    olap: OlapConfig = OlapConfig()
    # Where checkpoints are kept: a folder or an object store.
    checkpoints: LakeConfig
    # Where artefacts of models are kept.
    models: LakeConfig
    rpc: RpcConfig
