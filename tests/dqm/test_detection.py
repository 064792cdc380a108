"""Faults are found and named; clean days give nothing. Simulated tables: three markets of about 2,500 rows a day, about 1,500 series."""

from dataclasses import replace

import numpy as np
import pytest

from chassis import resourcefiles
from services.dqm.components import residual
from services.dqm.deviations import judge
from services.dqm.frame import Frame
from services.dqm.incidents import Kind, summary
from services.dqm.judging import Rules, Seen, look
from services.dqm.monitor import rules_of
from tests.dqm.tables import MARKETS, SEED_RESOURCES, Table, frame, indices, table, with_fault

EXPECTED = {
    "nulls": (Kind.NULLS, "coordinates"),
    "shifted_mean": (Kind.SHIFT, "measures"),
    "distinct_collapse": (Kind.DISTINCT, "identifiers"),
    "halved_volume": (Kind.VOLUME, ""),
    "stale": (Kind.STALE, ""),
    "doubled_rows": (Kind.DUPLICATES, ""),
}
ENTITY = "identifiers0"
CLEAN_TABLES, FAULTY_TABLES = 40, 4


@pytest.fixture(scope="module")
def rules() -> Rules:
    """The policy that a cell begins with."""
    (policy,) = [resource for resource in resourcefiles.read([SEED_RESOURCES]) if resource.kind == "QualityPolicy"]
    return rules_of(policy.quality_policy, 56)


def seen(told: Frame, rules: Rules) -> Seen:
    """What is seen of the last day."""
    return look(told, str(told.dates[-1]), ENTITY, (), rules)


def test_clean_days_give_no_incident(rules: Rules) -> None:
    """Weekly rhythm, honest noise and heavy tails are no fault: not one of 40 tables of 28 days is told of."""
    told = [seen(frame(table(np.random.default_rng(seed))), rules) for seed in range(CLEAN_TABLES)]
    assert [summary(finding) for found in told for finding in found.findings] == []
    assert all(found.series > 700 and not found.unknown for found in told)


@pytest.mark.parametrize("days", [1, 2])
def test_the_first_days_of_a_table_are_looked_at(days: int, rules: Rules) -> None:
    """Without history there is nothing that they could differ from."""
    found = seen(frame(table(np.random.default_rng(3), days=days)), rules)
    assert not found.findings and found.series == 0


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("seed", range(FAULTY_TABLES))
def test_a_fault_is_one_finding_with_its_kind_column_and_market(kind: str, seed: int, rules: Rules) -> None:
    """Any column, any market: exactly one finding tells it."""
    random = np.random.default_rng(1000 + seed)
    made = table(random)
    wanted, columns = EXPECTED[kind]
    column = int(random.choice(indices(made, columns)[1:])) if columns else 0
    market = int(random.integers(len(MARKETS)))
    (found,) = seen(frame(with_fault(made, kind, column, market)), rules).findings
    assert (found.kind, found.market) == (wanted, MARKETS[market])
    assert found.columns == ((made.names[column],) if columns else ())
    assert MARKETS[market] in summary(found)


def test_two_faults_are_two_findings(rules: Rules) -> None:
    """Half of a market's rows and nulls in a column of another market have two causes."""
    made = table(np.random.default_rng(7))
    column = indices(made, "coordinates")[0]
    both = with_fault(with_fault(made, "halved_volume", 0, 0), "nulls", column, 2)
    found = {(finding.kind, finding.market, finding.columns) for finding in seen(frame(both), rules).findings}
    assert found == {(Kind.VOLUME, "1", ()), (Kind.NULLS, "3", (made.names[column],))}


def test_a_fault_of_all_markets_is_one_finding_of_none(rules: Rules) -> None:
    """The same fault in each market is told once, without a market."""
    made = table(np.random.default_rng(8))
    column = indices(made, "measures")[3]
    for market in range(len(MARKETS)):
        made = with_fault(made, "shifted_mean", column, market)
    (found,) = seen(frame(made), rules).findings
    assert (found.kind, found.market, found.markets, found.columns) == (Kind.SHIFT, "", (), (made.names[column],))


def test_longitude_follows_latitude(rules: Rules) -> None:
    """Nulls in both halves of a position, and what they do to a cell made of it, are one finding."""
    made = renamed(table(np.random.default_rng(9)), ("pickup_latitude", "pickup_longitude", "pickup_cell"))
    faulty = with_fault(with_fault(made, "nulls", 0, 1), "nulls", 1, 1)
    (found,) = seen(frame(with_fault(faulty, "shifted_mean", 2, 1)), rules).findings
    assert (found.kind, found.market) == (Kind.NULLS, "2")
    assert set(found.columns[:2]) == {"pickup_latitude", "pickup_longitude"}
    assert found.columns[2:] == ("pickup_cell",)


def test_one_giant_value_is_no_shift(rules: Rules) -> None:
    """A value so large that it alone moves the mean of its day is evidence at most."""
    told = frame(table(np.random.default_rng(10)))
    row = np.flatnonzero(told.where("1", "measures5"))
    by_metric = {int(told.metrics[index]): index for index in row}
    values = told.values.copy()
    rows = values[by_metric[1], -1]
    values[by_metric[5], -1] = values[by_metric[6], -1] * rows * 2
    values[by_metric[6], -1] *= 3
    assert seen(replace(told, values=values), rules).findings == ()


def test_times_are_judged_from_midnight(rules: Rules) -> None:
    """Seconds since 1970 grow by a day each day, which is no shift; six hours more are one."""
    told = frame(renamed(table(np.random.default_rng(11)), ("pickup_time",)))
    midnight = told.dates.astype("datetime64[s]").astype(float)
    offsets = {4: 0.0, 5: 86_000.0, 6: 50_000.0, 7: 51_000.0}
    noise = np.random.default_rng(12).normal(0, 300.0, (len(told.metrics), len(told.dates)))
    values = told.values.copy()
    for row in np.flatnonzero(told.where(column="pickup_time")):
        if int(told.metrics[row]) in offsets:
            values[row] = midnight + offsets[int(told.metrics[row])] + noise[row]
    assert seen(replace(told, values=values), rules).findings == ()
    late = told.where("2", "pickup_time") & np.isin(told.metrics, (5, 6, 7))
    values[late, -1] += 6 * 3600
    (found,) = seen(replace(told, values=values), rules).findings
    assert (found.kind, found.market, found.columns) == (Kind.SHIFT, "2", ("pickup_time",))


def test_short_history_is_unknown(rules: Rules) -> None:
    """Before the policy's number of partitions is known, nothing is told and nothing passes."""
    found = seen(frame(with_fault(table(np.random.default_rng(13), days=10), "halved_volume", 0, 0)), rules)
    assert found.findings == ()
    assert "history is too short" in found.unknown


def test_components_agree_and_name_the_columns(rules: Rules) -> None:
    """The residual of a faulty market stands out, that of a clean day does not, and the hit column makes up most of it."""
    made = table(np.random.default_rng(14))
    column = indices(made, "measures")[0]
    faulty = frame(with_fault(made, "shifted_mean", column, 0))
    rest = residual(judge(faulty, np.zeros(faulty.values.shape, bool), rules.thresholds), MARKETS[0])
    assert rest.score > 0
    assert rest.columns[0] == made.names[column]
    assert seen(faulty, rules).score == rest.score
    assert seen(frame(made), rules).score == 0


def renamed(made: Table, names: tuple[str, ...]) -> Table:
    """The table, its coordinates (then others of its measures) named otherwise and put first."""
    order = [*indices(made, "coordinates"), *(index for index in range(len(made.names)) if index not in indices(made, "coordinates"))]
    parts = {name: getattr(made, name)[:, order] for name in ("missing", "mean", "median", "low", "high", "distinct")}
    titles = [made.names[index] for index in order]
    return replace(made, names=(*names, *titles[len(names) :]), **parts)
