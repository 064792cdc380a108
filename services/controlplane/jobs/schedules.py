"""When a schedule ticks, and for which date: pure, time is given."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.errors import Violation
from chassis.resources import Key
from services.controlplane.jobs import gate
from services.controlplane.jobs.runs import TRAINING_SUFFIX
from services.controlplane.resources.retention import DROPS, RESERVED

# Ticks decided in one step: a backfill of years is made in many, each a short transaction.
MAX_TICKS = 100
# Dates outside of these years are not of schedules: before them there is nothing to read, after them no calendar of ours.
FIRST_YEAR, LAST_YEAR = 1970, 9000
# A tick that nobody looked at for so long was missed.
MISSED_SECONDS = 300
_SECOND = timedelta(seconds=1)
ALL, LATEST, NONE = specs_pb2.CATCH_UP_ALL, specs_pb2.CATCH_UP_LATEST, specs_pb2.CATCH_UP_NONE


@dataclass(frozen=True)
class Tick:
    """A moment that asks for a run of a date."""

    at: datetime
    day: date


@dataclass(frozen=True)
class Decision:
    """Ticks that get a run, and the moment up to which all are decided."""

    ticks: Sequence[Tick]
    position: datetime


def first_position(spec: specs_pb2.ScheduleSpec, declared_at: datetime) -> datetime:
    """The moment after which a schedule of the clock may tick: the beginning of its first date, else when it was declared."""
    if not spec.start_date:
        return declared_at
    return _begin(spec.cron, date.fromisoformat(spec.start_date)) - _SECOND


def position_of(spec: specs_pb2.ScheduleSpec, declared_at: datetime, walked: tuple[str, datetime] | None, now: datetime) -> datetime:
    """The moment after which a schedule of the clock may tick.

    Args:
        spec: what is declared now.
        declared_at: when the schedule was declared first.
        walked: the first date that the schedule was walked from, and the moment up to which; None if it never was.
        now: where a schedule goes on whose first date, yet to come, was taken away.
    """
    if walked is None or spec.start_date not in ("", walked[0]):
        return first_position(spec, declared_at)
    return walked[1] if spec.start_date else min(walked[1], now)


def decide(spec: specs_pb2.ScheduleSpec, position: datetime, now: datetime) -> Decision:
    """The ticks of the clock after `position` up to `now` that get a run, as the catch-up policy says; at most MAX_TICKS."""
    zone, until = _zone(spec.cron), now
    # A date that stands for "never", such as 9999-12-31, has no day after it.
    if spec.end_date and date.fromisoformat(spec.end_date).year < LAST_YEAR:
        until = min(now, _begin(spec.cron, date.fromisoformat(spec.end_date) + timedelta(days=1)) - _SECOND)
    if until <= position:
        return Decision((), position)
    if spec.catch_up == LATEST:
        newest = next(CronSim(spec.cron.expression, (until.replace(microsecond=0) + _SECOND).astimezone(zone), reverse=True), None)
        found = [newest] if newest is not None and newest > position else []
    else:
        after = max(position, now - timedelta(seconds=MISSED_SECONDS)) if spec.catch_up == NONE else position
        found = list(islice(takewhile(lambda moment: moment <= until, _moments(spec.cron, after)), MAX_TICKS))
    ticks = [Tick(moment.astimezone(UTC), moment.date() - timedelta(days=spec.cron.days_back)) for moment in found]
    return Decision(ticks, ticks[-1].at if len(ticks) == MAX_TICKS else until)


def coming(spec: specs_pb2.ScheduleSpec, now: datetime, count: int) -> list[datetime]:
    """The next ticks of the clock within the schedule's dates, at most `count`; none while it is paused, or ticks by data."""
    if spec.paused or spec.WhichOneof("trigger") != "cron":
        return []
    after = now
    if spec.start_date:
        after = max(now, _begin(spec.cron, date.fromisoformat(spec.start_date)) - _SECOND)
    last = date.fromisoformat(spec.end_date) if spec.end_date else date.max
    moments = islice(_moments(spec.cron, after), count)
    return [moment.astimezone(UTC) for moment in moments if moment.date() - timedelta(days=spec.cron.days_back) <= last]


def next_moment(spec: specs_pb2.ScheduleSpec, position: datetime) -> datetime | None:
    """The next tick of the clock after a position; None if there is none within 50 years."""
    return next(_moments(spec.cron, position), None)


def violations(resources: Sequence[resource_pb2.Resource], existing: Mapping[Key, resource_pb2.Resource]) -> list[Violation]:
    """What the contract's constraints cannot say of schedules: expressions, time zones, calendar dates, trained models."""
    models = {key[1]: resource.model for key, resource in existing.items() if key[0] == "Model"}
    models |= {resource.metadata.name: resource.model for resource in resources if resource.kind == "Model"}
    return [
        Violation(f"resources[{place}].spec.{field}", why)
        for place, resource in enumerate(resources)
        if resource.kind == "Schedule"
        for field, why in _wrong(resource.schedule, models)
    ]


def _wrong(spec: specs_pb2.ScheduleSpec, models: Mapping[str, specs_pb2.ModelSpec]) -> Iterable[tuple[str, str]]:
    for field, text in (("startDate", spec.start_date), ("endDate", spec.end_date)):
        try:
            date.fromisoformat(text or "2000-01-01")
        except ValueError as error:
            yield field, f"{text} is not a date: {error}"
        if text and int(text[:4]) < FIRST_YEAR:
            yield field, f"{text} is before the year {FIRST_YEAR}"
    if spec.WhichOneof("trigger") == "cron":
        yield from _wrong_cron(spec)
    if spec.run_kind in DROPS:
        yield "runKind", RESERVED
    if spec.run_kind.endswith(TRAINING_SUFFIX) and spec.subject in models:
        wrong = gate.mismatch(spec.run_kind, models[spec.subject])
        if wrong is not None:
            yield "runKind", wrong


def _wrong_cron(spec: specs_pb2.ScheduleSpec) -> Iterable[tuple[str, str]]:
    try:
        _zone(spec.cron)
    except (ValueError, KeyError, OSError):
        yield "cron.timeZone", f"{spec.cron.time_zone} is not a time zone, such as Europe/Berlin"
        return
    try:
        if next_moment(spec, datetime(2000, 1, 1, tzinfo=UTC)) is None:
            yield "cron.expression", f"{spec.cron.expression} never comes"
    except (CronSimError, ValueError, AssertionError) as error:
        yield "cron.expression", f"{error}: five fields, minute, hour, day of month, month, day of week, such as 30 2 * * *"


def _zone(cron: specs_pb2.CronTrigger) -> ZoneInfo:
    return ZoneInfo(cron.time_zone or "UTC")


def _moments(cron: specs_pb2.CronTrigger, after: datetime) -> Iterator[datetime]:
    """Ticks after a moment (UTC). Where clocks are set back, the library tells one of the hour before again."""
    return (moment for moment in CronSim(cron.expression, after.astimezone(_zone(cron))) if moment > after)


def _begin(cron: specs_pb2.CronTrigger, day: date) -> datetime:
    """The first moment whose run could be of this date, UTC: within a zone, times of an hour that comes twice do not compare."""
    return datetime.combine(day + timedelta(days=cron.days_back), time(), tzinfo=_zone(cron)).astimezone(UTC)
