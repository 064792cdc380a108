"""What an objective means, which verdicts count for it, and how it is met. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.tiers import TIERS, sla_of
from services.controlplane.partitions.partitions import Aspect, Judged, Verdict

DEFAULT_WINDOW_DAYS = 28
# Who says how objectives are met.
COMPONENT = "arterial-controlplane"
_INDICATORS = {
    specs_pb2.SLO_INDICATOR_FRESHNESS: Aspect.FRESHNESS,
    specs_pb2.SLO_INDICATOR_COMPLETENESS: Aspect.COMPLETENESS,
    specs_pb2.SLO_INDICATOR_QUALITY: Aspect.QUALITY,
}
# Days before today whose partition tells how things are now; quality tells of each partition by itself.
_TELLING_DAYS = {Aspect.FRESHNESS: 0, Aspect.COMPLETENESS: 1}


class Standing(StrEnum):
    """Whether an objective is met."""

    MET = "MET"
    BUDGET_SPENT = "BUDGET_SPENT"
    NOT_MEASURED = "NOT_MEASURED"


_REASONS = {Standing.MET: "Met", Standing.BUDGET_SPENT: "BudgetSpent", Standing.NOT_MEASURED: "NotMeasured"}


@dataclass(frozen=True)
class Objective:
    """A declared Slo, with what its dataset's SLA and tier say where it does not."""

    name: str
    owner: str
    generation: int
    dataset: str
    indicator: Aspect
    threshold: float
    """Seconds of freshness at most, percent of the others at least; 0: as the verdicts say."""
    objective_percent: float
    window_days: int

    def first_day(self, today: date) -> date:
        """The first day of the window that ends today."""
        return today - timedelta(days=self.window_days - 1)


@dataclass(frozen=True)
class Tally:
    """What was measured of an objective in a cell within its window: minutes, of quality partitions."""

    cell: str
    total: int
    good: int
    since: datetime | None = None

    @property
    def share_percent(self) -> float:
        """Share that was good; 0 where nothing was measured."""
        return 100.0 * self.good / self.total if self.total else 0.0

    def budget_left_percent(self, objective_percent: float) -> float:
        """How much is left of the share that may be bad, percent of it: all of it (100) until something was bad; below 0 if more was."""
        bad = 100.0 * (self.total - self.good) / self.total if self.total else 0.0
        return round(100.0 * (1.0 - bad / (100.0 - objective_percent)), 6) + 0.0  # exactly spent is 0, not -0

    def standing(self, objective_percent: float) -> Standing:
        """Whether the objective is met; exactly met is met."""
        if not self.total:
            return Standing.NOT_MEASURED
        wanted = round(objective_percent * self.total, 6)
        return Standing.MET if 100 * self.good >= wanted else Standing.BUDGET_SPENT


def objective(slo: resource_pb2.Resource, dataset: resource_pb2.Resource) -> Objective:
    """What a Slo means for its dataset."""
    spec, sla = slo.slo, sla_of(dataset)
    promised = {Aspect.FRESHNESS: float(sla.freshness_seconds), Aspect.COMPLETENESS: sla.completeness_percent}
    indicator = _INDICATORS[spec.indicator]
    return Objective(
        slo.metadata.name,
        slo.metadata.owner,
        slo.metadata.generation,
        spec.dataset,
        indicator,
        spec.threshold or promised.get(indicator, 0.0),
        spec.objective_percent or TIERS[dataset.dataset.tier].objective_percent,
        spec.window_days or DEFAULT_WINDOW_DAYS,
    )


def sample(wanted: Objective, verdicts: Iterable[Judged], today: date) -> bool | None:
    """Whether all is good now, by the verdicts of a report; None if none of them says so. Quality has no now."""
    if wanted.indicator not in _TELLING_DAYS:
        return None
    day = today - timedelta(days=_TELLING_DAYS[wanted.indicator])
    found = [
        _good(wanted, judged)
        for judged in verdicts
        if judged.key.dataset == wanted.dataset and judged.key.day == day and judged.aspect is wanted.indicator
    ]
    told = [good for good in found if good is not None]
    return all(told) if told else None


def _good(wanted: Objective, judged: Judged) -> bool | None:
    if judged.verdict not in (Verdict.PASS, Verdict.FAIL):
        return None
    if judged.value is None or not wanted.threshold:
        return judged.verdict is Verdict.PASS
    return judged.value <= wanted.threshold if wanted.indicator is Aspect.FRESHNESS else judged.value >= wanted.threshold


def condition(wanted: Objective, tally: Tally) -> resource_pb2.Condition:
    """How an objective is met in a cell, as a condition of its resource: ready is what is met."""
    standing = tally.standing(wanted.objective_percent)
    status = {Standing.MET: "True", Standing.BUDGET_SPENT: "False"}.get(standing, "Unknown")
    message = f"{tally.share_percent:.4g} % of {tally.total} within {wanted.window_days} days, {wanted.objective_percent:g} % are wanted"
    left = tally.budget_left_percent(wanted.objective_percent)
    told = f"{message}; {left:.0f} % of the budget is left"
    return resource_pb2.Condition(type="Ready", status=status, reason=_REASONS[standing], message=told)


def unmeasured(slo: resource_pb2.Resource) -> Sequence[resource_pb2.Condition]:
    """What is to be said of a Slo that no cell has said anything of, if it is one: a condition."""
    if slo.kind != "Slo" or any(told.type == "Ready" for told in slo.status.conditions):
        return ()
    message = f"no verdict on {slo.slo.dataset} within its window"
    said = resource_pb2.Condition(type="Ready", status="Unknown", reason=_REASONS[Standing.NOT_MEASURED], message=message)
    said.last_transition_time.CopyFrom(slo.metadata.updated_at)
    said.observed_generation, said.component = slo.metadata.generation, COMPONENT
    return (said,)
