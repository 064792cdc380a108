"""What is told of a fault: evidence, findings, incidents, and how findings of today meet incidents of yesterday."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum

# Evidence that an incident carries at most.
MAX_EVIDENCE = 100


class Kind(IntEnum):
    """Kinds of faults, by the numbers of the contract."""

    NULLS = 1
    SHIFT = 2
    DISTINCT = 3
    VOLUME = 4
    STALE = 5
    DUPLICATES = 6


# Faults of rows, not of values.
OF_ROWS = frozenset({Kind.VOLUME, Kind.STALE, Kind.DUPLICATES})


class State(IntEnum):
    """States of incidents, by the numbers of the contract."""

    OPEN = 1
    ACKNOWLEDGED = 2
    RESOLVED = 3


@dataclass(frozen=True)
class Evidence:
    """A point that left its forecast."""

    dataset: str
    market: str
    column: str
    metric: str
    expected: float
    observed: float
    deviations: float


@dataclass(frozen=True)
class Finding:
    """One cause within a partition, with everything that it explains."""

    kind: Kind
    dataset: str
    date: str
    market: str
    columns: tuple[str, ...]
    """The most telling first; none if the rows themselves are concerned."""
    severity: int
    """1 to 4."""
    evidence: tuple[Evidence, ...]
    """Strongest first."""
    table_version: int
    markets: tuple[str, ...] = ()
    """Markets hit, where they are several."""
    affected: tuple[str, ...] = ()
    """Other datasets that show it or depend on it."""

    @property
    def of_rows(self) -> bool:
        """True if the rows themselves are concerned."""
        return self.kind in OF_ROWS


@dataclass(frozen=True)
class Incident:
    """A finding that was told to people, and what became of it."""

    incident_id: str
    state: State
    finding: Finding
    summary: str
    opened_at: datetime
    resolved_at: datetime | None = None
    acknowledged_by: str = ""

    @property
    def open(self) -> bool:
        """True until the partition is good again."""
        return self.state is not State.RESOLVED

    def concerns(self, dataset: str) -> bool:
        """True if the dataset shows it or depends on it."""
        return dataset == self.finding.dataset or dataset in self.finding.affected


@dataclass(frozen=True)
class Reconciled:
    """What is to be written after a date was judged."""

    opened: tuple[Finding, ...]
    """Findings that are no incident yet."""
    kept: tuple[Incident, ...]
    """Open incidents as the newest findings tell them."""
    resolved: tuple[Incident, ...]
    """Open incidents that nothing speaks of any more."""


_TELLING = {
    Kind.NULLS: ("METRIC_MISSING_PERCENT",),
    Kind.SHIFT: ("METRIC_MEAN", "METRIC_MEDIAN"),
    Kind.DISTINCT: ("METRIC_DISTINCT",),
    Kind.VOLUME: ("METRIC_COUNT",),
    Kind.STALE: ("METRIC_COUNT",),
    Kind.DUPLICATES: ("METRIC_ROWS_PER_ENTITY", "METRIC_COUNT"),
}


def same_cause(incident: Finding, finding: Finding) -> bool:
    """True if a finding tells an incident anew: same date, kind and market, a shared column, and datasets that are one or affected."""
    related = incident.dataset in (finding.dataset, *finding.affected) or finding.dataset in incident.affected
    columns = (not incident.columns and not finding.columns) or set(incident.columns) & set(finding.columns)
    same = (incident.date, incident.market, incident.kind) == (finding.date, finding.market, finding.kind)
    return bool(same and columns and related)


def reconcile(incidents: Sequence[Incident], findings: Sequence[Finding], judged: Collection[str]) -> Reconciled:
    """Meets the open incidents of a date with what was found of it now.

    An incident keeps its id while its cause is there. It is resolved when nothing speaks of it any more, if its dataset is among those that
    were judged: what could not be judged proves nothing.
    """
    left, kept = list(findings), []
    resolved = []
    for incident in incidents:
        matching = [finding for finding in left if same_cause(incident.finding, finding)]
        found = min(matching, key=lambda finding: finding.dataset != incident.finding.dataset, default=None)
        if found is None and incident.finding.dataset in judged:
            resolved.append(incident)
        elif found is not None:
            left.remove(found)
            kept.append(replace(incident, finding=found, summary=summary(found)))
    return Reconciled(tuple(left), tuple(kept), tuple(resolved))


def summary(finding: Finding) -> str:
    """One sentence for people."""
    point, where = _telling(finding), f"in {_place(finding)} on {finding.date}"
    if finding.kind is Kind.STALE:
        if finding.table_version < 0:
            return f"The partition of {finding.date} of {finding.dataset} did not come"
        return f"No rows came {where}"
    if point is None:
        return f"{finding.kind.name.capitalize()} {where}"
    return f"{_sentence(finding, point)} {where}; {_number(point, point.expected)} expected"


def _sentence(finding: Finding, point: Evidence) -> str:
    metric, observed = point.metric.removeprefix("METRIC_").replace("_", " ").lower(), _number(point, point.observed)
    subject = finding.columns[0] if finding.columns else "rows"
    subject += f" (and {len(finding.columns) - 1} more)" if len(finding.columns) > 1 else ""
    sentences = {
        Kind.VOLUME: f"{observed} rows",
        Kind.DUPLICATES: f"The same things are told several times: {metric} {observed}",
        Kind.NULLS: f"{observed} of {subject} is null",
        Kind.DISTINCT: f"{observed} distinct values of {subject}",
        Kind.SHIFT: f"Values of {subject} moved: {metric} {observed}",
    }
    return sentences[finding.kind]


def _number(point: Evidence, value: float) -> str:
    if point.metric == "METRIC_MISSING_PERCENT":
        return f"{value:.1f} %"
    return f"{value:,.0f}" if point.metric in ("METRIC_COUNT", "METRIC_DISTINCT") else f"{value:,.6g}"


def _telling(finding: Finding) -> Evidence | None:
    """The strongest evidence of what the kind of fault speaks of, of the first column."""
    column = finding.columns[0] if finding.columns else None
    points = [point for point in finding.evidence if point.dataset == finding.dataset and column in (None, point.column)]
    metrics = _TELLING[finding.kind]
    return next((point for point in points if point.metric in metrics), points[0] if points else None)


def _place(finding: Finding) -> str:
    if finding.market:
        return f"market {finding.market} of {finding.dataset}"
    return f"markets {', '.join(finding.markets)} of {finding.dataset}" if finding.markets else finding.dataset
