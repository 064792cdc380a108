"""What a tier means: written here once, for everything that a dataset does not say itself. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2

DAY = 86_400
# Instances that hold rows which age; a topic's records, a model or a dashboard have an owner, but no row that could be late.
_AGING = ("lake/", "olap/", "feature/")
# The zone that is profiled by partition, hence where tests can run: other instances of a dataset hold the same rows.
_TESTED = "lake/curated/"


@dataclass(frozen=True)
class Tier:
    """Defaults of the datasets of a tier, and what they must declare themselves."""

    meaning: str
    freshness_seconds: int
    completeness_percent: float
    objective_percent: float
    paging: str
    retention_days: int
    compute_class: str
    copies: int
    required_tests: frozenset[specs_pb2.QualityTest.ValueType]
    declared_sla: bool = False


TIERS: Mapping[int, Tier] = {
    1: Tier(
        "the marketplace, its money or its safety stop without it",
        freshness_seconds=300,
        completeness_percent=99.9,
        objective_percent=99.9,
        paging="page",
        retention_days=5 * 365,
        compute_class="reserved",
        copies=2,
        required_tests=frozenset({specs_pb2.QUALITY_TEST_NOT_NULL, specs_pb2.QUALITY_TEST_UNIQUE}),
        declared_sla=True,
    ),
    2: Tier(
        "decisions of a day are worse without it",
        freshness_seconds=3600,
        completeness_percent=99.0,
        objective_percent=99.0,
        paging="ticket",
        retention_days=2 * 365,
        compute_class="standard",
        copies=1,
        required_tests=frozenset(),
    ),
    3: Tier(
        "nobody waits for it",
        freshness_seconds=DAY,
        completeness_percent=95.0,
        objective_percent=95.0,
        paging="none",
        retention_days=365,
        compute_class="preemptible",
        copies=0,
        required_tests=frozenset(),
    ),
}


def promise(dataset: resource_pb2.Resource, rules: Mapping[str, specs_pb2.QualityRuleSpec]) -> pb.Promise:
    """What holds for a dataset; `rules` has the quality rules by name, of whatever dataset."""
    spec, tier = dataset.dataset, TIERS[dataset.dataset.tier]
    aging = dataset.metadata.name.startswith(_AGING)
    sla = specs_pb2.Sla(
        freshness_seconds=spec.sla.freshness_seconds or (tier.freshness_seconds if aging else 0),
        completeness_percent=spec.sla.completeness_percent or (tier.completeness_percent if aging else 0),
    )
    return pb.Promise(
        sla=sla,
        retention_seconds=spec.retention_seconds or tier.retention_days * DAY,
        objective_percent=tier.objective_percent,
        paging=tier.paging,
        compute_class=tier.compute_class,
        copies=tier.copies,
        quality_rules=sorted(name for name, rule in rules.items() if rule.dataset == dataset.metadata.name),
    )


def lacking(dataset: resource_pb2.Resource, rules: Collection[specs_pb2.QualityRuleSpec]) -> list[str]:
    """What the tier of a dataset demands and nobody declared, for people."""
    name, spec, tier = dataset.metadata.name, dataset.dataset, TIERS[dataset.dataset.tier]
    found = []
    if tier.declared_sla and not dataset.metadata.owner:
        found.append("metadata.owner")
    if tier.declared_sla and name.startswith(_AGING) and not spec.sla.freshness_seconds:
        found.append("spec.sla.freshnessSeconds")
    if name.startswith(_TESTED):
        tested = {rule.test for rule in rules if rule.dataset == name and not rule.advisory}
        missing = sorted(specs_pb2.QualityTest.Name(test) for test in tier.required_tests - tested)
        found += [f"a QualityRule with test {test}" for test in missing]
    return found
