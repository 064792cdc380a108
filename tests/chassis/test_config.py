"""Configuration: from file and environment, validated whole."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chassis.config import KafkaConfig, load
from chassis.errors import ArterialError
from services.pricing.config import PricingConfig

GOOD = {
    "state_dir": "/tmp/state",
    "kafka": {"bootstrap": "127.0.0.1:9092"},
    "kv": {"url": "redis://127.0.0.1:6379"},
    "checkpoints": {"root": "/tmp/checkpoints"},
    "lake": {"root": "/tmp/lake"},
    "models": {"root": "/tmp/models"},
    "rpc": {"port": 7000},
}


def written(folder: Path, document: object) -> Path:
    """A configuration file."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value from the environment, the rest from the file."""
    monkeypatch.setenv("ARTERIAL_RPC__PORT", "7001")
    config = load(PricingConfig, written(tmp_path, GOOD))
    assert (config.rpc.port, config.kafka.bootstrap) == (7001, "127.0.0.1:9092")


def test_every_wrong_field_is_named(tmp_path: Path) -> None:
    """Missing, unknown and ill-typed fields in one go."""
    wrong = GOOD | {"rpc": {"port": "many"}, "kv": {"url": "http://x"}, "surprise": 1}
    wrong.pop("state_dir")
    with pytest.raises(ArterialError) as caught:
        load(PricingConfig, written(tmp_path, wrong))
    assert {violation.field for violation in caught.value.violations} == {"rpc.port", "kv.url", "surprise", "state_dir"}


def test_credentials_belong_together() -> None:
    """SASL without a password is refused before anything connects."""
    with pytest.raises(ValueError, match="sasl_username"):
        KafkaConfig(bootstrap="x:1", sasl_mechanism="PLAIN")


def test_secrets_are_not_shown() -> None:
    """A configuration may be logged."""
    config = KafkaConfig(bootstrap="x:1", sasl_mechanism="PLAIN", sasl_username="me", sasl_password="hush")
    assert "hush" not in repr(config)


@pytest.mark.parametrize(("document", "status"), [(GOOD, 0), ({}, 2)])
def test_check_config_tells_by_its_exit_status(tmp_path: Path, document: object, status: int) -> None:
    """`--check-config` starts nothing."""
    command = [sys.executable, "-m", "services.pricing", "serve", "--config", str(written(tmp_path, document)), "--check-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "state_dir" in done.stderr or status == 0
