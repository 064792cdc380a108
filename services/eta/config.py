"""Configuration of the eta service."""

from chassis.config import KafkaConfig, KvConfig, LakeConfig, RpcConfig, ServiceConfig


class EtaConfig(ServiceConfig):
    """What every role of eta is told."""

    kafka: KafkaConfig
    kv: KvConfig
    # Where checkpoints are kept: a folder or an object store.
    checkpoints: LakeConfig
    rpc: RpcConfig
