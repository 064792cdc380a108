"""Configuration of the pricing service."""

from typing import ClassVar

from chassis.config import RpcConfig, StreamingConfig
from chassis.learning.training import WorkConfig


class PricingConfig(StreamingConfig, WorkConfig):
    """What every role of pricing is told."""

    watches: ClassVar[frozenset[str]] = frozenset({"FareTable", "Feature", "Model", "Pipeline", "PricingPolicy", "Schema", "Topic"})
    rpc: RpcConfig
