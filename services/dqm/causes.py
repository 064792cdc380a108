"""From the series of one partition that left their forecast to its causes: what a cause entails is explained away."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from services.dqm.components import residual
from services.dqm.deviations import Judged
from services.dqm.incidents import MAX_EVIDENCE, Evidence, Finding, Kind
from services.dqm.metrics import ROWS, WHOLE, Metric

# A distinct count below this share of what was expected has collapsed: whatever the values did besides follows from it.
COLLAPSED = 0.5
# Severity begins at so many deviations, and grows by one with each factor.
LEAST_STRENGTH, SEVERITY_FACTOR = 8.0, 3.0
# Markets without one expected row in so many days do not count as missing.
MIN_EXPECTED_ROWS = 10.0


def absent(partitions: Collection[str], date: str, season: int) -> bool:
    """True if a dataset has no partition of a date, although it had one on the same day of most of the last three seasons."""
    if date in partitions or not partitions:
        return False
    before = [str(np.datetime64(date) - season * back) for back in (1, 2, 3)]
    came = [day in partitions for day in before if day >= min(partitions)]
    return 2 * sum(came) > len(came)


def missing_partition(dataset: str, date: str) -> Finding:
    """The finding that a whole partition did not come."""
    return Finding(Kind.STALE, dataset, date, WHOLE, (), 4, (), -1)


def causes(judged: Judged) -> list[Finding]:
    """The causes of a judged partition, each once."""
    markets = judged.frame.market_names() or [WHOLE]
    by_market = {market: _of_market(judged, market) for market in markets}
    found = _across_markets(by_market)
    if markets != [WHOLE]:
        found += [finding for finding in _of_market(judged, WHOLE) if not _explained(finding, found)]
    return sorted(found, key=lambda finding: (-finding.severity, finding.kind, finding.market, finding.columns))


def _of_market(judged: Judged, market: str) -> list[Finding]:
    of_market = judged.frame.markets == market
    told = _points(judged, judged.left & of_market)
    points = _points(judged, (judged.left | judged.beside) & of_market)
    rows = _of_rows(told)
    if rows is None:
        return _of_values(judged, market, told, points)
    kind, explained = rows
    if kind is Kind.STALE:
        return [_finding(judged, market, kind, (), points)]
    first = _finding(judged, market, kind, (), [point for point in told if point.metric in explained])
    return [first, *_of_values(judged, market, [point for point in told if point.metric not in explained], points)]


def _of_values(judged: Judged, market: str, told: Sequence[Evidence], points: Sequence[Evidence]) -> list[Finding]:
    return [
        _finding(judged, market, kind, columns, [point for point in points if point.column in columns])
        for kind, columns in _of_columns(told).items()
    ]


def _of_rows(told: Sequence[Evidence]) -> tuple[Kind, frozenset[str]] | None:
    """The cause that concerns the rows, if any, and the metrics that it explains: with rows go their nulls and distinct values."""
    rows = next((point for point in told if point.column == ROWS and point.metric == Metric.COUNT.label), None)
    if rows is None:
        return None
    if rows.observed == 0 and rows.expected >= MIN_EXPECTED_ROWS:
        return Kind.STALE, frozenset()
    repeated = any(point.metric == Metric.ROWS_PER_ENTITY.label and point.deviations > 0 for point in told)
    kind = Kind.DUPLICATES if repeated and rows.deviations > 0 else Kind.VOLUME
    return kind, frozenset(metric.label for metric in (Metric.COUNT, Metric.NULLS, Metric.DISTINCT, Metric.ROWS_PER_ENTITY))


def _of_columns(told: Sequence[Evidence]) -> Mapping[Kind, tuple[str, ...]]:
    """Columns by the kind of their fault, the most telling first. What belongs to a column with nulls follows from that."""
    by_column: dict[str, list[Evidence]] = {}
    for point in told:
        if point.column != ROWS:
            by_column.setdefault(point.column, []).append(point)
    kinds = {column: _kind(points) for column, points in by_column.items()}
    stems = {_stem(column) for column, kind in kinds.items() if kind is Kind.NULLS}
    found: dict[Kind, list[str]] = {}
    for column, kind in kinds.items():
        found.setdefault(Kind.NULLS if _stem(column) in stems else kind, []).append(column)
    return {kind: tuple(sorted(columns, key=lambda column: kinds[column] is not kind)) for kind, columns in found.items()}


def _kind(points: Sequence[Evidence]) -> Kind:
    metrics = {point.metric: point for point in points}
    if Metric.MISSING_PERCENT.label in metrics:
        return Kind.NULLS
    distinct = metrics.get(Metric.DISTINCT.label)
    if distinct is not None and (len(metrics) == 1 or distinct.observed < COLLAPSED * distinct.expected):
        return Kind.DISTINCT
    if Metric.ROWS_PER_ENTITY.label in metrics and len(metrics) == 1:
        return Kind.DUPLICATES
    return Kind.DISTINCT if distinct is not None and Metric.ROWS_PER_ENTITY.label in metrics else Kind.SHIFT


def _stem(column: str) -> str:
    """What columns of one thing have in common: pickup_position_latitude, pickup_position_longitude and pickup_cell tell of the pickup."""
    return column.partition("_")[0]


def _across_markets(by_market: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Findings of the same kind on shared columns in at least half of the markets have one cause."""
    found: list[Finding] = []
    rest = [finding for findings in by_market.values() for finding in findings]
    while rest:
        first = rest.pop(0)
        same = [first, *(other for other in rest if other.kind is first.kind and (_shared(first, other) or first.of_rows))]
        if len(same) >= 2 and 2 * len(same) >= len(by_market):
            rest = [finding for finding in rest if finding not in same]
            everywhere = len(same) == len(by_market)
            found.append(_united(same, () if everywhere else tuple(finding.market for finding in same)))
        else:
            found.append(first)
    return found


def _united(findings: Sequence[Finding], markets: tuple[str, ...]) -> Finding:
    columns = dict.fromkeys(column for finding in findings for column in finding.columns)
    return replace(
        findings[0],
        market=WHOLE,
        markets=markets,
        columns=tuple(columns),
        severity=max(finding.severity for finding in findings),
        evidence=strongest(point for finding in findings for point in finding.evidence),
    )


def _explained(finding: Finding, found: Sequence[Finding]) -> bool:
    """True if what all markets together show follows from what single ones do: other rows are another mix of markets."""
    stems = {_stem(column) for column in finding.columns}
    return any(other.of_rows or stems & {_stem(column) for column in other.columns} for other in found)


def _shared(first: Finding, other: Finding) -> bool:
    return bool(set(first.columns) & set(other.columns))


def strongest(points: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """The strongest points, as many as an incident carries."""
    return tuple(sorted(points, key=lambda point: -abs(point.deviations))[:MAX_EVIDENCE])


def _finding(judged: Judged, market: str, kind: Kind, columns: tuple[str, ...], points: Sequence[Evidence]) -> Finding:
    frame, evidence = judged.frame, strongest(points)
    strength = abs(evidence[0].deviations) if evidence else 0.0
    grown = 1 + int(np.log(max(strength / LEAST_STRENGTH, 1.0)) / np.log(SEVERITY_FACTOR))
    # The components have a say where what they cannot explain lies in the very columns.
    rest = residual(judged, market)
    score = rest.score if not columns or set(columns) & set(rest.columns) else 0
    severity = 4 if kind is Kind.STALE else int(np.clip(round((grown + score) / 2), 1, 4))
    return Finding(kind, frame.dataset, str(frame.dates[-1]), market, columns, severity, evidence, int(frame.versions[-1]))


def _points(judged: Judged, chosen: NDArray[np.bool_]) -> list[Evidence]:
    """Evidence of the chosen series, strongest first."""
    frame = judged.frame
    points = [
        Evidence(
            frame.dataset,
            str(frame.markets[row]),
            str(frame.columns[row]),
            Metric(frame.metrics[row]).label,
            float(judged.expected[row]),
            float(judged.observed[row]),
            float(judged.deviations[row]),
        )
        for row in np.flatnonzero(chosen)
    ]
    return sorted(points, key=lambda point: -abs(point.deviations))
