"""Whether a table keeps what its dataset promises: how fresh it is, and how complete its days are. Pure.

Freshness is judged by event time, as windows and the age of features are (a row that says little of now is old, however lately it came),
but an event counts as no later than its arrival in Kafka, so that one clock that is ahead makes nothing fresh. It is judged of today, by
the age of the newest row there is, and of the days before, by how far they reach towards their end. Only topics age: of a day before the
topic's first record, whose rows came from files, nothing is said; a file that fills a day afterwards counts.

Completeness is the share of what is known of: rows of raw that the table has taken, against those and the ones that wait in raw or in
Kafka. It is told of days that have ended, once rows of their last moment are due by the promise of freshness: of a day that goes on it
says nothing. What was never produced, or was lost before Kafka, it cannot see: quality compares with other days, the audit with
producers' ledgers. A dead row is not missing: it did arrive, and is told of as a dead letter. Rows of topics are dated by Kafka time,
those of files by their events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from services.ingestion.holdings import DAY_SECONDS, Block, day_of

# Days before today that are judged; older ones are quality's alone.
JUDGED_DAYS = 2


class Aspect(Enum):
    """What is judged."""

    FRESHNESS = "FRESHNESS"
    COMPLETENESS = "COMPLETENESS"


@dataclass(frozen=True)
class Promise:
    """What the users of a dataset may count on."""

    freshness_seconds: int
    completeness_percent: float


@dataclass(frozen=True)
class Known:
    """What is known of a table at one moment: blocks of raw that it has, blocks that it has not, and offsets by day that raw lacks."""

    there: Sequence[Block]
    waiting: Sequence[Block] = ()
    in_kafka: Mapping[int, int] | None = None
    """None while Kafka does not answer."""


@dataclass(frozen=True)
class Finding:
    """What was found of a day (counted since 1970): seconds of freshness, or percent of completeness, and why for people."""

    day: int
    aspect: Aspect
    kept: bool
    value: float
    reason: str


def judge(known: Known, promise: Promise, now: float) -> list[Finding]:
    """What can be said of today and the days before it, newest first. `now` is seconds since 1970."""
    today = day_of(now)
    found = [_age(known, promise, now)]
    for day in range(today - 1, today - 1 - JUDGED_DAYS, -1):
        found += [_reach(known, promise, day), _share(known, promise, day, now)]
    return [finding for finding in found if finding is not None]


def _age(known: Known, promise: Promise, now: float) -> Finding | None:
    if not _flows(known, day_of(now)):
        return None
    newest = max((time for block in known.there for time in block.reaches.values()), default=None)
    told = f"newest row is of {_moment(newest)}" if newest is not None else "it has no row yet"
    # What has nothing is as old as the first row that it lacks.
    since = newest if newest is not None else min((time for block in known.waiting for time in block.reaches.values()), default=now)
    age = max(0.0, now - since)
    return Finding(day_of(now), Aspect.FRESHNESS, age <= promise.freshness_seconds, age, f"{told}; {_promised(promise)}")


def _reach(known: Known, promise: Promise, day: int) -> Finding | None:
    if not _flows(known, day):
        return None
    start, end = day * DAY_SECONDS, (day + 1) * DAY_SECONDS
    reach = max((block.reaches.get(day, start) for block in known.there), default=start)
    told = f"newest row of the day is of {_moment(reach)}" if reach > start else "it has no row of the day"
    short = float(end - reach)
    return Finding(day, Aspect.FRESHNESS, short <= promise.freshness_seconds, short, f"{told}; {_promised(promise)} before its end")


def _share(known: Known, promise: Promise, day: int, now: float) -> Finding | None:
    if known.in_kafka is None or now < (day + 1) * DAY_SECONDS + promise.freshness_seconds:
        return None
    there, waiting = (sum(block.rows_of(day) for block in blocks) for blocks in (known.there, known.waiting))
    unread = known.in_kafka.get(day, 0)
    expected = there + waiting + unread
    if not expected:
        return None
    value = 100.0 * there / expected
    where = ", ".join(f"{rows:,} wait in {place}" for rows, place in ((waiting, "raw"), (unread, "Kafka")) if rows)
    told = f"{there:,} of {expected:,} rows are there" + f", {where}" * bool(where)
    kept = value >= promise.completeness_percent
    return Finding(day, Aspect.COMPLETENESS, kept, value, f"{told}; {promise.completeness_percent:g} % are promised")


def _flows(known: Known, day: int) -> bool:
    """True if the topic had records by that day: before, there was nothing that could be late."""
    return any(block.live and block.first_day <= day for blocks in (known.there, known.waiting) for block in blocks)


def _promised(promise: Promise) -> str:
    return f"at most {promise.freshness_seconds} s are promised"


def _moment(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}"
