"""What the control plane makes of tiers: what it promises for a dataset, and what it demands of one. Pure."""

from collections.abc import Collection, Mapping

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.tiers import AGING, DAY, TIERS, sla_of

# The zone that is profiled by partition, hence where tests can run: other instances of a dataset hold the same rows.
_TESTED = "lake/curated/"


def promise(dataset: resource_pb2.Resource, rules: Mapping[str, specs_pb2.QualityRuleSpec]) -> pb.Promise:
    """What holds for a dataset; `rules` has the quality rules by name, of whatever dataset."""
    spec, tier = dataset.dataset, TIERS[dataset.dataset.tier]
    return pb.Promise(
        sla=sla_of(dataset),
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
    if tier.declared_sla and name.startswith(AGING) and not spec.sla.freshness_seconds:
        found.append("spec.sla.freshnessSeconds")
    if name.startswith(_TESTED):
        tested = {rule.test for rule in rules if rule.dataset == name and not rule.advisory}
        missing = sorted(specs_pb2.QualityTest.Name(test) for test in tier.required_tests - tested)
        found += [f"a QualityRule with test {test}" for test in missing]
    return found
