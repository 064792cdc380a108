"""Memory of many processes together: pages that several share count once, so the figures of processes add up."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass
class Peaks:
    """Largest memory seen, MB: of each process with its children, and of all at one moment."""

    each_mb: dict[str, float] = field(default_factory=dict)
    together_mb: float = 0.0

    def sample(self, pids: Mapping[str, int]) -> None:
        """Looks at the processes, by name. Blocks for some milliseconds."""
        children = _children()
        now = {name: sum(_pss_mb(member) for member in _tree(pid, children)) for name, pid in pids.items()}
        for name, value in now.items():
            self.each_mb[name] = max(self.each_mb.get(name, 0.0), value)
        self.together_mb = max(self.together_mb, sum(now.values()))


def pss_mb(pid: int) -> float:
    """Proportional memory of a process and its children, MB; 0 if it is gone.

    The proportional set size (Linux, proc(5), smaps_rollup) divides each page by the number of processes that map it. Where the system does
    not tell it, resident memory stands in, which counts shared pages once per process.
    """
    children = _children()
    return sum(_pss_mb(member) for member in _tree(pid, children))


def _children() -> Mapping[int, list[int]]:
    """Process ids by parent, of all processes of the machine, in one pass."""
    found: dict[int, list[int]] = defaultdict(list)
    for process in psutil.process_iter(["ppid"]):
        found[process.info["ppid"]].append(process.pid)
    return found


def _tree(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in children.get(pid, []):
        yield from _tree(child, children)


def _pss_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.Error:
        return 0.0
