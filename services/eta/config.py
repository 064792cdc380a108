"""Configuration of the eta service."""

from chassis.config import RpcConfig, StreamingConfig
from chassis.learning.training import WorkConfig


class EtaConfig(StreamingConfig, WorkConfig):
    """What every role of eta is told."""

    rpc: RpcConfig
