"""Configuration of the eta service."""

from typing import ClassVar

from chassis.config import RpcConfig, StreamingConfig
from chassis.learning.training import WorkConfig


class EtaConfig(StreamingConfig, WorkConfig):
    """What every role of eta is told."""

    watches: ClassVar[frozenset[str]] = frozenset({"EtaPolicy", "Model", "Pipeline", "Schema", "Topic"})
    rpc: RpcConfig
