"""When a date is ripe to be judged: what is still being written looks like a fault."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class _Wait:
    """What is waited for: nothing may change from `since` on; the first change was at `first`."""

    state: Hashable
    since: float
    first: float


class Quiet:
    """Things that must not have changed for a while."""

    def __init__(self, quiet_seconds: float, patience_seconds: float) -> None:
        self._quiet = quiet_seconds
        self._patience = patience_seconds
        self._waits: dict[Hashable, _Wait] = {}

    def ripe(self, thing: Hashable, state: Hashable, now: float) -> bool:
        """True if the thing's state has been this one for `quiet_seconds`, or the thing has been waiting for `patience_seconds`."""
        wait = self._waits.get(thing)
        if wait is None:
            wait = self._waits[thing] = _Wait(state, now, now)
        elif wait.state != state:
            wait = self._waits[thing] = _Wait(state, now, wait.first)
        return now - wait.since >= self._quiet or now - wait.first >= self._patience

    def done(self, thing: Hashable) -> None:
        """The thing was dealt with: its next change begins a new wait."""
        self._waits.pop(thing, None)


def versions_until(partitions: Mapping[str, int], date: str, first: str) -> tuple[tuple[str, int], ...]:
    """Dates from `first` to `date`, both included, with the table version of each: what a judgement of `date` stands on."""
    return tuple((at, version) for at, version in sorted(partitions.items()) if first <= at <= date)
