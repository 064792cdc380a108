"""Configuration of the eta service."""

from chassis.config import LakeConfig, OlapConfig, RpcConfig, StreamingConfig


class EtaConfig(StreamingConfig):
    """What every role of eta is told."""

    # Training reads the lake through the OLAP engine.
    lake: LakeConfig
    olap: OlapConfig = OlapConfig()
    # Where artefacts of models are kept.
    models: LakeConfig
    rpc: RpcConfig
