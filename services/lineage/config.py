"""Configuration of the lineage service."""

from chassis.config import RpcConfig, ServiceConfig, SqlConfig


class LineageConfig(ServiceConfig):
    """What the lineage service is told."""

    sql: SqlConfig
    rpc: RpcConfig
