"""Processes: roles that are named are imported by the process that runs them, which imports nothing that it never uses."""

import subprocess
import sys
from pathlib import Path

import pytest

ROLES = """
import sys
import pyarrow as pa

async def tell(config, context):
    pa.array([1])
    pa.array([2.0])
    print("role", "pandas" in sys.modules, "opentelemetry.sdk" in sys.modules)
"""
MAIN = """
from chassis.config import ServiceConfig
from chassis.process import main
main("program", ServiceConfig, {"tell": "told_roles:tell", "other": "no_such_module:role"})
"""


@pytest.mark.parametrize(("role", "status"), [("tell", 0), ("other", 1)])
def test_only_the_role_that_runs_is_imported(tmp_path: Path, role: str, status: int) -> None:
    """Arrow does without pandas, which is installed; telemetry without an endpoint does without the SDK."""
    (tmp_path / "told_roles.py").write_text(ROLES)
    environment = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "ARTERIAL_STATE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", MAIN, role], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    assert done.stdout == ("role False False\n" if status == 0 else "") and ("no_such_module" in done.stderr) == bool(status)


def test_pandas_is_installed() -> None:
    """Otherwise the test above could not fail."""
    assert subprocess.run([sys.executable, "-c", "import pandas"], check=False).returncode == 0
