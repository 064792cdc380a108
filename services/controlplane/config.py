"""Configuration of the control plane."""

from chassis.config import RpcConfig, ServiceConfig, SqlConfig


class ControlPlaneConfig(ServiceConfig):
    """What the control plane is told. An empty database begins with the resources of `resources_dir`."""

    sql: SqlConfig
    rpc: RpcConfig
    # Hears of changes by LISTEN, at once; False where PostgreSQL stands behind a pooler that does not pass notifications on: then it polls.
    notifications: bool = True
