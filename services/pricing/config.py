"""Configuration of the pricing service."""

from chassis.config import KafkaConfig, KvConfig, LakeConfig, RpcConfig, ServiceConfig


class PricingConfig(ServiceConfig):
    """What every role of pricing is told."""

    kafka: KafkaConfig
    kv: KvConfig
    # Where checkpoints are kept: a folder or an object store.
    checkpoints: LakeConfig
    rpc: RpcConfig
