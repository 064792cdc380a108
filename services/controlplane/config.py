"""Configuration of the control plane."""

from pydantic import Field, model_validator

from chassis.config import LOOPBACK, Part, RpcConfig, ServiceConfig, SqlConfig, TlsConfig


class RegistryConfig(Part):
    """Where the schema registry speaks the REST API of Confluent's Schema Registry."""

    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)
    tls: TlsConfig | None = None

    @model_validator(mode="after")
    def _loopback_or_tls(self) -> "RegistryConfig":
        if self.tls is None and self.host not in LOOPBACK:
            raise ValueError(f"host {self.host} is not loopback: configure tls (cert_file, key_file) to listen there")
        if self.tls is not None and not (self.tls.cert_file and self.tls.key_file):
            raise ValueError("a server's tls needs cert_file and key_file")
        return self


class ControlPlaneConfig(ServiceConfig):
    """What the control plane is told. An empty database begins with the resources of `resources_dir`."""

    sql: SqlConfig
    rpc: RpcConfig
    # Hears of changes by LISTEN, at once; False where PostgreSQL stands behind a pooler that does not pass notifications on: then it polls.
    notifications: bool = True
    # Of a change that goes from cell to cell: how long a cell must be well before the next is shown it, and may take to say that it is.
    rollout_soak_seconds: float = Field(default=10.0, ge=0.0)
    rollout_timeout_seconds: float = Field(default=120.0, gt=0.0)
    # Without it schemas are served by gRPC only.
    registry: RegistryConfig | None = None
