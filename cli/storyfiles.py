"""The files of the demo's story: four weeks of history, a last day that may arrive with a fault, and the correction that supersedes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from chassis.recordfiles import source_of, write_records
from simulator import faults
from simulator.columns import Events
from simulator.faults import Fault
from simulator.history import Calendar, History, join_days

DAYS = 28


@dataclass(frozen=True)
class StoryFiles:
    """Record files, one per topic each; `correction` is None where nothing is wrong."""

    calendar: Calendar
    fault: Fault | None
    history: tuple[Path, ...]
    last_day: tuple[Path, ...]
    correction: Path | None


def write(folder: Path, now: float, *, seed: int, faulty: bool, settle_seconds: int) -> StoryFiles:
    """Writes the files of a story whose last day has settled at `now` (seconds since 1970). The same seed and day give the same bytes."""
    calendar = Calendar.ending(datetime.fromtimestamp(now, UTC), DAYS, settle_seconds)
    days = list(History(calendar.first, seed).days(calendar.days))
    fault = faults.choose(seed) if faulty else None
    last = days[-1]
    arriving = last if fault is None else {**last, fault.topic: faults.inject(last[fault.topic], fault, seed)}
    history = _write_all(folder, "history", join_days(days[:-1]))
    last_day = _write_all(folder, f"day-{calendar.last}", arriving)
    correction = None
    if fault is not None:
        wrong = folder / f"day-{calendar.last}-{fault.topic}.parquet"
        correction = folder / f"correction-{calendar.last}-{fault.topic}.parquet"
        write_records(correction, fault.topic, last[fault.topic].encode(fault.topic), (source_of(wrong),))
    return StoryFiles(calendar, fault, history, last_day, correction)


def _write_all(folder: Path, name: str, events: Mapping[str, Events]) -> tuple[Path, ...]:
    paths = []
    for topic, columns in events.items():
        path = folder / f"{name}-{topic}.parquet"
        write_records(path, topic, columns.encode(topic))
        paths.append(path)
    return tuple(paths)
