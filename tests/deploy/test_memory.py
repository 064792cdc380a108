"""Memory of processes: what they share counts once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.memory import Peaks, pss_mb

MEGABYTES = 64
# Has every page of a file in memory, says so, and stays.
READER = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
    print(sum(pages[::4096]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Two processes that have the same pages of a file in memory."""
    file = tmp_path / "shared"
    file.write_bytes(b"x" * (MEGABYTES << 20))
    command = [sys.executable, "-I", "-S", "-c", READER, str(file)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system tells no proportional memory")
def test_shared_pages_count_once(readers: list["subprocess.Popen[bytes]"]) -> None:
    """Two processes that map one file have half of it each; what is gone has nothing; peaks stay when memory goes."""
    pids = {"one": readers[0].pid, "two": readers[1].pid}
    assert MEGABYTES / 2 < pss_mb(pids["one"]) < MEGABYTES
    peaks = Peaks()
    peaks.sample(pids)
    assert MEGABYTES < peaks.together_mb < 2 * MEGABYTES
    before = dict(peaks.each_mb)
    readers[1].kill()
    readers[1].communicate()
    assert pss_mb(pids["two"]) == 0.0
    peaks.sample({"two": pids["two"]})
    assert peaks.each_mb == before
