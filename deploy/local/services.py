"""The service processes of the laptop stack, and the configuration of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.child import LOOPBACK

RESOURCES = Path(__file__).parents[1] / "resources"


@dataclass(frozen=True)
class Places:
    """Where everything of a stack is: ports by process name, and the data folder."""

    ports: Mapping[str, int]
    data_dir: Path
    otlp_endpoint: str | None = None

    def address(self, name: str) -> str:
        """host:port of a process."""
        return f"{LOOPBACK}:{self.ports[name]}"

    @property
    def lake(self) -> Path:
        """Root of the lake."""
        return self.data_dir / "lake"

    def addresses(self) -> dict[str, str]:
        """What callers connect to, by name."""
        return {
            "kafka": self.address("kafka"),
            "redis": f"redis://{self.address('redis')}",
            "postgres": self.address("postgres"),
            "clickhouse": self.address("clickhouse"),
            "ingestion": self.address("ingestion-serve"),
            "pricing": self.address("pricing-serve"),
            "radar": self.address("radar-serve"),
            "eta": self.address("eta-serve"),
            "controlplane": self.address("controlplane-serve"),
            "registry": f"http://{self.address('registry')}",
            "dss": self.address("dss-serve"),
            "dqm": self.address("dqm-serve"),
            "lineage": self.address("lineage-serve"),
        }


@dataclass(frozen=True)
class Service:
    """A process: `python -m MODULE ROLE --config FILE`. With `port` it serves RPCs."""

    name: str
    module: str
    role: str
    settings: Callable[[Places], dict[str, Any]]
    port: bool = False


def _common(places: Places, name: str) -> dict[str, Any]:
    return {
        "state_dir": str(places.data_dir / "state" / name),
        "resources_dir": str(RESOURCES),
        "control_plane": places.address("controlplane-serve"),
        "lineage": places.address("lineage-serve"),
        "telemetry": {"otlp_endpoint": places.otlp_endpoint},
    }


def _ingestion(name: str) -> Callable[[Places], dict[str, Any]]:
    def settings(places: Places) -> dict[str, Any]:
        return _common(places, name) | {
            "kafka": {"bootstrap": places.address("kafka")},
            "lake": {"root": str(places.lake)},
            "olap": {"host": LOOPBACK, "port": places.ports["clickhouse"]},
            "rpc": {"port": places.ports["ingestion-serve"]},
        }

    return settings


def _learning(places: Places) -> dict[str, Any]:
    """What training reads, and where models are kept."""
    return {
        "lake": {"root": str(places.lake)},
        "olap": {"host": LOOPBACK, "port": places.ports["clickhouse"]},
        "models": {"root": str(places.data_dir / "models")},
    }


def _pricing(name: str) -> Callable[[Places], dict[str, Any]]:
    def settings(places: Places) -> dict[str, Any]:
        return _common(places, name) | {
            "kafka": {"bootstrap": places.address("kafka")},
            "kv": {"url": f"redis://{places.address('redis')}"},
            "checkpoints": {"root": str(places.data_dir / "checkpoints")},
            **_learning(places),
            "rpc": {"port": places.ports["pricing-serve"]},
        }

    return settings


def _eta(name: str) -> Callable[[Places], dict[str, Any]]:
    def settings(places: Places) -> dict[str, Any]:
        return _common(places, name) | {
            "kafka": {"bootstrap": places.address("kafka")},
            "kv": {"url": f"redis://{places.address('redis')}"},
            "checkpoints": {"root": str(places.data_dir / "checkpoints")},
            **_learning(places),
            "rpc": {"port": places.ports["eta-serve"]},
        }

    return settings


def _radar(name: str) -> Callable[[Places], dict[str, Any]]:
    def settings(places: Places) -> dict[str, Any]:
        return _common(places, name) | {
            "kafka": {"bootstrap": places.address("kafka")},
            "kv": {"url": f"redis://{places.address('redis')}"},
            "sql": {"url": f"postgresql+asyncpg://radar@{places.address('postgres')}/radar"},
            "checkpoints": {"root": str(places.data_dir / "checkpoints")},
            **_learning(places),
            "rpc": {"port": places.ports["radar-serve"]},
        }

    return settings


def _dss(name: str) -> Callable[[Places], dict[str, Any]]:
    def settings(places: Places) -> dict[str, Any]:
        return _common(places, name) | {
            "lake": {"root": str(places.lake)},
            "olap": {"host": LOOPBACK, "port": places.ports["clickhouse"], "database": "dss"},
            "rpc": {"port": places.ports["dss-serve"]},
        }

    return settings


def _dqm(name: str) -> Callable[[Places], dict[str, Any]]:
    def settings(places: Places) -> dict[str, Any]:
        return _common(places, name) | {
            "dss": places.address("dss-serve"),
            "sql": {"url": f"postgresql+asyncpg://dqm@{places.address('postgres')}/dqm"},
            "rpc": {"port": places.ports["dqm-serve"]},
        }

    return settings


def _controlplane(places: Places) -> dict[str, Any]:
    settings = _common(places, "controlplane-serve")
    settings["control_plane"] = None
    url = f"postgresql+asyncpg://controlplane@{places.address('postgres')}/controlplane"
    ports = {"rpc": {"port": places.ports["controlplane-serve"]}, "registry": {"port": places.ports["registry"]}}
    return settings | {"sql": {"url": url}, **ports}


def _lineage(places: Places) -> dict[str, Any]:
    url = f"postgresql+asyncpg://lineage@{places.address('postgres')}/lineage"
    return _common(places, "lineage-serve") | {"sql": {"url": url}, "rpc": {"port": places.ports["lineage-serve"]}}


SERVICES = (
    Service("controlplane-serve", "services.controlplane", "serve", _controlplane, port=True),
    Service("lineage-serve", "services.lineage", "serve", _lineage, port=True),
    Service("ingestion-serve", "services.ingestion", "serve", _ingestion("ingestion-serve"), port=True),
    Service("ingestion-stream", "services.ingestion", "stream", _ingestion("ingestion-stream")),
    Service("ingestion-follow", "services.ingestion", "follow", _ingestion("ingestion-follow")),
    Service("pricing-combine", "services.pricing", "combine", _pricing("pricing-combine")),
    Service("pricing-stream", "services.pricing", "stream", _pricing("pricing-stream")),
    Service("pricing-serve", "services.pricing", "serve", _pricing("pricing-serve"), port=True),
    Service("pricing-features", "services.pricing", "features", _pricing("pricing-features")),
    Service("pricing-work", "services.pricing", "work", _pricing("pricing-work")),
    Service("radar-combine", "services.radar", "combine", _radar("radar-combine")),
    Service("radar-stream", "services.radar", "stream", _radar("radar-stream")),
    Service("radar-work", "services.radar", "work", _radar("radar-work")),
    Service("radar-serve", "services.radar", "serve", _radar("radar-serve"), port=True),
    Service("eta-combine", "services.eta", "combine", _eta("eta-combine")),
    Service("eta-stream", "services.eta", "stream", _eta("eta-stream")),
    Service("eta-serve", "services.eta", "serve", _eta("eta-serve"), port=True),
    Service("eta-work", "services.eta", "work", _eta("eta-work")),
    Service("dss-profile", "services.dss", "profile", _dss("dss-profile")),
    Service("dss-serve", "services.dss", "serve", _dss("dss-serve"), port=True),
    Service("dqm-monitor", "services.dqm", "monitor", _dqm("dqm-monitor")),
    Service("dqm-serve", "services.dqm", "serve", _dqm("dqm-serve"), port=True),
)
ENGINES = ("kafka", "redis", "postgres", "clickhouse")
# Further ports of services.
PORTS = ("registry",)
# One database and role per service.
DATABASES = ("controlplane", "dqm", "lineage", "radar")
