"""Configuration of the pricing service."""

from chassis.config import RpcConfig, StreamingConfig


class PricingConfig(StreamingConfig):
    """What every role of pricing is told."""

    rpc: RpcConfig
