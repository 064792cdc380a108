"""Judges the partitions of one date in all monitored datasets, and says what each is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from services.dqm.causes import causes
from services.dqm.components import residual
from services.dqm.deviations import Thresholds, history_of, judge
from services.dqm.frame import Frame, prepared
from services.dqm.incidents import Finding, Incident
from services.dqm.metrics import ROWS, WHOLE, Metric
from services.dqm.rules import Rule, broken
from services.dqm.verdicts import Partition, Verdict


@dataclass(frozen=True)
class Rules:
    """How partitions are judged; see QualityPolicySpec."""

    thresholds: Thresholds
    judged_days: int
    settle_seconds: float
    history_days: int
    """Days before a partition that are learned from."""
    declared: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    """Quality rules by dataset."""


@dataclass(frozen=True)
class Seen:
    """What was seen of a dataset's partition."""

    findings: tuple[Finding, ...]
    score: int
    """0 (good) to 4."""
    series: int
    """Series judged."""
    deviating: int
    """Series that left their forecast."""
    unknown: str = ""
    """Why it could not be judged; empty if it was."""
    broken: tuple[str, ...] = ()
    """Why it breaks declared rules; empty if it keeps them."""
    advice: tuple[str, ...] = ()
    """Why it breaks rules that are only told."""


def look(told: Frame, date: str, entity_column: str, incidents: Sequence[Incident], rules: Rules) -> Seen:
    """Judges the partition of a date, which the dataset has, by its rules, and against the days before it that no incident is open on."""
    declared, day = rules.declared.get(told.dataset, ()), np.datetime64(date)
    blocking, advisory = ([rule for rule in declared if rule.advisory is only_told] for only_told in (False, True))
    seen = _forecast(told, date, entity_column, incidents, rules)
    return replace(seen, broken=broken(told, day, blocking), advice=broken(told, day, advisory))


def _forecast(told: Frame, date: str, entity_column: str, incidents: Sequence[Incident], rules: Rules) -> Seen:
    frame = prepared(history_of(told, np.datetime64(date), rules.history_days), entity_column)
    judged = judge(frame, _excluded(frame, incidents), rules.thresholds)
    rows = frame.where(WHOLE, ROWS, Metric.COUNT)
    if np.isnan(frame.values[rows, -1]).all():
        return Seen((), 0, 0, 0, "its statistics are missing")
    if not judged.judged[rows].any():
        return Seen((), 0, 0, 0, f"its history is too short: fewer than {rules.thresholds.min_history} good partitions before it")
    found = tuple(causes(judged))
    scores = [residual(judged, market).score for market in (WHOLE, *frame.market_names())]
    return Seen(found, max(scores), int(judged.judged.sum()), int(judged.left.sum()))


def partition(dataset: str, date: str, version: int, seen: Seen | None, incidents: Sequence[Incident]) -> Partition:
    """The verdict on a partition: FAIL while an incident is open on it here, a cause further up hits it, or it breaks a rule.

    Args:
        seen: None if the partition is not judged.
        incidents: the open incidents of the date.
    """
    hits = [incident for incident in incidents if incident.finding.date == date and incident.concerns(dataset)]
    measures = {} if seen is None else {"score": seen.score, "series": seen.series, "deviating": seen.deviating}
    broken_rules = () if seen is None else seen.broken
    if hits or broken_rules:
        reasons, ids = (*(hit.summary for hit in hits), *broken_rules), tuple(hit.incident_id for hit in hits)
        return Partition(dataset, date, version, Verdict.FAIL, reasons, ids, **measures)
    if seen is None:
        return Partition(dataset, date, version, Verdict.NOT_JUDGED, ("older than what is judged: history is learned from",))
    if seen.unknown:
        return Partition(dataset, date, version, Verdict.UNKNOWN, (f"cannot be told: {seen.unknown}",))
    return Partition(dataset, date, version, Verdict.PASS, seen.advice, (), **measures)


def complete(date: str, now: float, settle_seconds: float) -> bool:
    """True if a partition's date ended (UTC) at least `settle_seconds` ago."""
    return _epoch(date) + 86_400 + settle_seconds <= now


def within(date: str, now: float, judged_days: int) -> bool:
    """True if a date lies at most `judged_days` days before today's (UTC)."""
    return now // 86_400 - _epoch(date) // 86_400 <= judged_days


def dates_due(partitions: Mapping[str, Mapping[str, int]], now: float, rules: Rules) -> list[str]:
    """Dates to judge, oldest first: all complete ones within the judged days, come or not; none while nothing ever came."""
    if not any(partitions.values()):
        return []
    today = np.datetime64(int(now // 86_400), "D")
    days = [str(today - np.timedelta64(back, "D")) for back in range(rules.judged_days, -1, -1)]
    return [date for date in days if complete(date, now, rules.settle_seconds)]


def _epoch(date: str) -> int:
    return int(np.datetime64(date, "s").astype(np.int64))


def _excluded(frame: Frame, incidents: Sequence[Incident]) -> NDArray[np.bool_]:
    """Points that open incidents speak of, shape (S, T): of the incident's market, and of all markets together."""
    excluded = np.zeros(frame.values.shape, bool)
    for incident in incidents:
        day = frame.day(np.datetime64(incident.finding.date))
        if not incident.concerns(frame.dataset) or not 0 <= day < len(frame.dates) - 1:
            continue
        market = incident.finding.market
        excluded[:, day] |= np.isin(frame.markets, (market, WHOLE)) if market else True
    return excluded
