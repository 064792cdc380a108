"""What a tier means: written here once, for everything that a dataset does not say itself. Pure.

Both sides go by it: the control plane, which promises and refuses, and the processes that measure whether a promise is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2

DAY = 86_400
# Instances that hold rows which age; a topic's records, a model or a dashboard have an owner, but no row that could be late.
AGING = ("lake/", "olap/", "feature/")


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


def sla_of(dataset: resource_pb2.Resource) -> specs_pb2.Sla:
    """What the users of a dataset may count on: as it says, else as its tier means; 0 where its instance has no rows that age."""
    spec, tier = dataset.dataset, TIERS[dataset.dataset.tier]
    aging = dataset.metadata.name.startswith(AGING)
    return specs_pb2.Sla(
        freshness_seconds=spec.sla.freshness_seconds or (tier.freshness_seconds if aging else 0),
        completeness_percent=spec.sla.completeness_percent or (tier.completeness_percent if aging else 0),
    )
