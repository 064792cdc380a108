"""What a raw table holds, by day and by the version that brought it: what it and its followers are judged by. Pure.

Rows are counted in raw, also for followers: one that took a version of raw has all of its good rows, whatever deduplication made of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from chassis.lake import Commit
from services.ingestion.supersession import sources_of

DAY_SECONDS = 86_400
# Columns that blocks are made from.
EVENT_TIME, KAFKA_TIME = "event_time", "_kafka_time"
FILE_SOURCE = "file:"
# Days that a block remembers how far it reaches into: clocks that are wrong would make it any number.
MAX_REACHES = 8


@dataclass(frozen=True)
class Block:
    """Good rows that came by one version of raw, or by several up to it. Days are counted, and times are seconds, since 1970 (UTC)."""

    version: int
    rows: int
    first_day: int
    last_day: int
    """Days that the rows are of: of a topic that of their Kafka time, of a file those of its events, over which they are spread evenly."""
    live: bool
    """False of what came from files."""
    reaches: Mapping[int, float] = field(default_factory=dict)
    """The latest event known of a day."""

    def rows_of(self, day: int) -> int:
        """Rows of a day."""
        return round(self.rows / (self.last_day - self.first_day + 1)) if self.first_day <= day <= self.last_day else 0


@dataclass(frozen=True)
class Span:
    """From when to when a file's rows are, as its statistics say; None where they do not."""

    event_least: float | None
    event_most: float | None
    kafka_most: float | None


def block(version: int, rows: int, ingest_day: int, span: Span, *, live: bool) -> Block:
    """A block from what is known of a data file. An event is never later than its arrival, whatever its clock says."""
    times = [time for time in (span.event_most, span.kafka_most) if time is not None]
    most = min(times, default=None)
    reaches = {day_of(time): time for time in (span.event_least, most) if time is not None and (most is None or time <= most)}
    if live or span.event_least is None or most is None or span.event_least > most:
        return Block(version, rows, ingest_day, ingest_day, live, reaches)
    return Block(version, rows, day_of(span.event_least), day_of(most), live, reaches)


def blocks(commits: Iterable[Commit]) -> list[Block]:
    """Blocks of commits, whose files have bounds of EVENT_TIME and KAFKA_TIME. Compaction brings none, and dead rows are none."""
    found = []
    for commit in commits:
        if commit.data_change:
            live = any(not source.startswith(FILE_SOURCE) for source in sources_of(commit))
            for added in commit.added:
                if added.good:
                    (least, most), (_, kafka) = (added.bounds.get(name, ("", "")) for name in (EVENT_TIME, KAFKA_TIME))
                    day = day_of(seconds(added.partition_values["ingest_date"] or "") or 0.0)
                    span = Span(seconds(least), seconds(most), seconds(kafka))
                    found.append(block(commit.version, max(0, added.rows), day, span, live=live))
    return found


def folded(held: Sequence[Block], version: int) -> list[Block]:
    """The same, with one block for all of the same days up to a version, which every follower has taken."""
    alike: dict[tuple[int, int, bool], list[Block]] = defaultdict(list)
    for found in held:
        if found.version <= version:
            alike[found.first_day, found.last_day, found.live].append(found)
    merged = []
    for (first, last, live), same in alike.items():
        reaches: dict[int, float] = {}
        for day, time in (reach for found in same for reach in found.reaches.items()):
            reaches[day] = max(time, reaches.get(day, time))
        newest = dict(sorted(reaches.items())[-MAX_REACHES:])
        merged.append(Block(max(found.version for found in same), sum(found.rows for found in same), first, last, live, newest))
    return merged + [found for found in held if found.version > version]


def day_of(time: float) -> int:
    """The day (UTC) of a time."""
    return int(time // DAY_SECONDS)


def seconds(text: str) -> float | None:
    """A date or time of the log, ISO 8601, as seconds since 1970; None for none, or for a year that no calendar of ours has."""
    try:
        return float(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64)) / 1e6 if text else None
    except ValueError:
        return None
