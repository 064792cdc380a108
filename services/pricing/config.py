"""Configuration of the pricing service."""

from chassis.config import RpcConfig, StreamingConfig
from chassis.learning.training import WorkConfig


class PricingConfig(StreamingConfig, WorkConfig):
    """What every role of pricing is told."""

    rpc: RpcConfig
