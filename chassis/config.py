"""Typed configuration from a YAML file and the environment (`ARTERIAL_KAFKA__BOOTSTRAP=...`), validated whole before a start."""

import ssl
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from chassis.errors import ArterialError, Reason, Violation

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Part(BaseModel):
    """A part of a configuration: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsConfig(Part):
    """Certificates, PEM files."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A client context that trusts `ca_file` (or the system's authorities) and shows the certificate, if any."""
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if self.cert_file:
            context.load_cert_chain(str(self.cert_file), str(self.key_file) if self.key_file else None)
        return context


class KafkaConfig(Part):
    """How to reach Kafka."""

    bootstrap: str
    # Copies of the topics that are created here: 3 on a cluster.
    replication_factor: int = Field(default=1, ge=1)
    tls: TlsConfig | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: str | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _credentials(self) -> "KafkaConfig":
        if self.sasl_mechanism and not (self.sasl_username and self.sasl_password):
            raise ValueError("sasl_mechanism needs sasl_username and sasl_password")
        return self

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments common to all of aiokafka's clients."""
        protocol = ("SASL_" if self.sasl_mechanism else "") + ("SSL" if self.tls else "PLAINTEXT")
        options: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "security_protocol": protocol}
        if self.tls:
            options["ssl_context"] = self.tls.context()
        if self.sasl_mechanism:
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return options


class LakeConfig(Part):
    """Root of the lake: a folder or an object store's URI, with the store's credentials."""

    root: str
    storage_options: dict[str, str] = Field(default_factory=dict, repr=False)

    def table(self, name: str) -> str:
        """URI of a table, for example of "raw/trip_events_v2"."""
        return f"{self.root.rstrip('/')}/{name}"


class OlapConfig(Part):
    """How to reach ClickHouse over HTTP."""

    host: str = "127.0.0.1"
    port: int = 8123
    database: str = "live"
    username: str = "default"
    password: str = Field(default="", repr=False)
    tls: TlsConfig | None = None


class KvConfig(Part):
    """How to reach Redis: redis:// or rediss:// (TLS)."""

    url: str = Field(pattern=r"^rediss?://")
    tls: TlsConfig | None = None


class SqlConfig(Part):
    """How to reach PostgreSQL."""

    url: str = Field(pattern=r"^postgresql\+asyncpg://", repr=False)
    tls: TlsConfig | None = None


class RpcConfig(Part):
    """Where and how a server listens."""

    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)
    tls: TlsConfig | None = None
    # A frame of Publish holds up to 10,000 records; beyond this a client must split, so that one caller cannot fill the memory.
    max_message_bytes: int = 16 * 1024 * 1024
    # How long calls in flight may go on after SIGTERM; orchestrators kill after 30 s.
    drain_seconds: float = 10.0

    @model_validator(mode="after")
    def _loopback_or_tls(self) -> "RpcConfig":
        if self.tls is None and self.host not in LOOPBACK:
            raise ValueError(f"host {self.host} is not loopback: configure tls (cert_file, key_file) to listen there")
        if self.tls is not None and not (self.tls.cert_file and self.tls.key_file):
            raise ValueError("a server's tls needs cert_file and key_file")
        return self


class TelemetryConfig(Part):
    """Where traces and metrics go; nowhere without an endpoint."""

    otlp_endpoint: str | None = None
    # Share of traces that begin here and are recorded.
    sample_ratio: float = Field(default=1.0, ge=0.0, le=1.0)
    metrics_interval_seconds: float = Field(default=10.0, gt=0)


class CellConfig(Part):
    """The cell that this process belongs to."""

    name: str = "local"
    region: str = "local"
    # Names the Kafka cluster in the lake's progress (`txn` app ids): never change it for a lake that has data.
    kafka_cluster: str = "local"


class ServiceConfig(BaseSettings):
    """What every process of the suite is told. Services add their parts."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="ARTERIAL_", env_nested_delimiter="__")
    source_file: ClassVar[Path | None] = None
    # Kinds of resources that the processes of the service go by; all for none. What is not among them they never see.
    watches: ClassVar[frozenset[str]] = frozenset()

    cell: CellConfig = CellConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    # Folder for the last good configuration; must survive restarts.
    state_dir: Path
    # Desired state (YAML) that a process begins with before it ever heard of the control plane.
    resources_dir: Path | None = None
    # host:port of the control plane; without it the process lives on what is on disk.
    control_plane: str | None = None
    # host:port of the lineage service; without it what this process reads and writes is told to nobody.
    lineage: str | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if cls.source_file is not None:
            sources += (YamlConfigSettingsSource(settings_cls, cls.source_file),)
        return sources


class StreamingConfig(ServiceConfig):
    """What every process of a service with streams is told besides."""

    kafka: KafkaConfig
    kv: KvConfig
    # Where checkpoints are kept: a folder or an object store.
    checkpoints: LakeConfig


C = TypeVar("C", bound=ServiceConfig)


def load(config_class: type[C], path: Path | None) -> C:
    """Reads and validates a configuration.

    Raises:
        ArterialError: INVALID_REQUEST with one violation per wrong field, or if the file cannot be read.
    """
    if path is not None and not path.is_file():
        raise ArterialError(Reason.INVALID_REQUEST, f"configuration file {path} does not exist")
    bound: type[C] = type(config_class.__name__, (config_class,), {"source_file": path, "__module__": config_class.__module__})
    try:
        return bound()  # type: ignore[call-arg]
    except ValidationError as error:
        violations = [Violation(".".join(str(part) for part in item["loc"]) or "(whole)", item["msg"]) for item in error.errors()]
        raise ArterialError(
            Reason.INVALID_REQUEST, f"configuration {path or 'of the environment'} is not valid", violations=violations
        ) from error
    except yaml.YAMLError as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"configuration {path} is not YAML: {error}") from error
