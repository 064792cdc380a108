"""The embedded stack: nothing of it outlives its supervisor."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local.child import runs
from deploy.local.supervisor import read_state


def arterial(data_dir: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command line."""
    command = [sys.executable, "-m", "cli", "--data-dir", str(data_dir), "--output", "json", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a detached stack."""
    data_dir = tmp_path / "stack"
    try:
        started = arterial(data_dir, "up", "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        yield data_dir
    finally:
        state = read_state(data_dir)
        if state is not None:
            os.kill(state["pid"], signal.SIGKILL)


def pids(data_dir: Path) -> list[int]:
    """All processes of the stack and their children."""
    state = json.loads((data_dir / "stack.json").read_text())
    found = [process["pid"] for process in state["processes"].values()]
    return found + [child.pid for pid in found for child in psutil.Process(pid).children(recursive=True)]


def gone(found: list[int]) -> bool:
    """True if none of the processes runs any more."""
    return not any(runs(pid) for pid in found)


def test_status_then_a_killed_supervisor_then_up_again_with_the_same_data(running: Path) -> None:
    """Every process is healthy; SIGKILL of the supervisor leaves no orphan; the next start finds its data; `down` leaves none either."""
    status = arterial(running, "status")
    assert status.returncode == 0, status.stdout + status.stderr
    assert {row["healthy"] for row in json.loads(status.stdout)["processes"]} == {True}
    second = arterial(running, "up")
    assert second.returncode == 1 and "runs already" in second.stderr
    found = pids(running)
    os.kill(json.loads((running / "stack.json").read_text())["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not gone(found) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert gone(found)
    again = arterial(running, "up", "--detach")
    assert again.returncode == 0, again.stdout + again.stderr
    topics = arterial(running, "get", "Topic")
    assert "trip_events_v2" in topics.stdout
    found = pids(running)
    assert arterial(running, "down").returncode == 0
    assert gone(found)


def test_commands_without_a_stack_say_so(tmp_path: Path) -> None:
    """One clear sentence, status 1."""
    for words in (["status"], ["down"], ["get", "Topic"], ["audit"]):
        done = arterial(tmp_path, *words)
        assert done.returncode == 1 and "no stack runs" in done.stderr
