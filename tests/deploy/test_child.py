"""What the processes of a stack are given."""

import os
import subprocess
import sys
import time

from deploy.local.child import free_port, runs


def test_no_port_is_given_twice() -> None:
    """Of five hundred draws, ten would be of a port that is given and not listened on yet."""
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == len(ports)


def test_a_process_that_ended_does_not_run() -> None:
    """Whether somebody asked for its status already, or nobody did yet."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert runs(process.pid) and runs(os.getpid())
    process.kill()
    deadline = time.monotonic() + 60
    while runs(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.returncode is None and not runs(process.pid)
    process.communicate()
    assert not runs(process.pid)
