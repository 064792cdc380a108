"""What refers to what, by kind. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.lineage.definition import logical_names
from chassis.resources import Key, key_of
from services.controlplane.jobs.runs import TRAINING_SUFFIX

Resource = resource_pb2.Resource


@dataclass(frozen=True)
class Reference:
    """One resource names another; `path` says where."""

    source: Key
    target: Key
    path: str


def _names(kind: str, path: str, names: Iterable[str]) -> list[tuple[Key, str]]:
    return [((kind, name), path) for name in dict.fromkeys(names) if name]


def _of_schedule(spec: specs_pb2.ScheduleSpec) -> list[tuple[Key, str]]:
    """Datasets that start, feed or come of its runs, and the model that these train."""
    datasets = [*_names("Dataset", "spec.data.datasets", spec.data.datasets)]
    datasets += _names("Dataset", "spec.inputs", [given.dataset for given in spec.inputs])
    datasets += _names("Dataset", "spec.outputs", spec.outputs)
    return datasets + (_names("Model", "spec.subject", [spec.subject]) if spec.run_kind.endswith(TRAINING_SUFFIX) else [])


# The policy that a pipeline of a role takes its terms from.
_POLICY_OF_ROLE: Mapping[int, Key] = {
    specs_pb2.PIPELINE_ROLE_SURGE: ("PricingPolicy", "surge"),
    specs_pb2.PIPELINE_ROLE_SPEED: ("EtaPolicy", "eta"),
    specs_pb2.PIPELINE_ROLE_RISK: ("RiskPolicy", "risk"),
}


def _of_pipeline(spec: specs_pb2.PipelineSpec) -> list[tuple[Key, str]]:
    policy = _POLICY_OF_ROLE.get(spec.role)
    return _names("Topic", "spec.topics", spec.topics) + ([(policy, "spec.role")] if policy else [])


# What a specification names, by its kind: (kind and name, path of the field).
_TARGETS: Mapping[str, Callable[[Resource], list[tuple[Key, str]]]] = {
    "Cell": lambda r: _names("Schema", "spec.schemaPins", [pin.schema for pin in r.cell.schema_pins]),
    "Topic": lambda r: _names("Schema", "spec.schema", [r.topic.schema]),
    "Schema": lambda r: _names("Schema", "spec.references", [each.schema for each in r.schema.references]),
    "Pipeline": lambda r: _of_pipeline(r.pipeline),
    "Model": lambda r: _names("Dataset", "spec.inputs", [each.dataset for each in r.model.inputs]),
    "Dataset": lambda r: _names("Dataset", "spec.queries", [name for query in r.dataset.queries for name in logical_names(query)]),
    "Schedule": lambda r: _of_schedule(r.schedule),
    "CuratedTable": lambda r: _names("Dataset", "spec.sql", logical_names(r.curated_table.sql)),
    "Feature": lambda r: _names("Topic", "spec.topic", [r.feature.topic]),
    "QualityRule": lambda r: _names("Dataset", "spec.dataset", [r.quality_rule.dataset]),
    "Slo": lambda r: _names("Dataset", "spec.dataset", [r.slo.dataset]),
    "ReplicationPolicy": lambda r: [
        *_names("Dataset", "spec.datasets", r.replication_policy.datasets),
        *_names("Cell", "spec.fromCell", [r.replication_policy.from_cell]),
        *_names("Cell", "spec.toCells", r.replication_policy.to_cells),
    ],
    "PricingPolicy": lambda r: _names("FareTable", "spec.fareTable", [r.pricing_policy.fare_table]),
}


def references_of(resource: Resource) -> list[Reference]:
    """What a resource refers to, its owner included."""
    targets = _TARGETS[resource.kind](resource) if resource.kind in _TARGETS else []
    targets += _names("Owner", "metadata.owner", [resource.metadata.owner])
    return [Reference(key_of(resource), target, path) for target, path in targets]


def dataset_names(resource: Resource, existing: Mapping[Key, Resource]) -> list[str]:
    """Logical names of what a resource is or makes: where lineage knows it. Of a Schema the topics that are written with it."""
    name = resource.metadata.name
    if resource.kind == "Schema":
        return [f"kafka/{other}" for (kind, other), topic in sorted(existing.items()) if kind == "Topic" and topic.topic.schema == name]
    return {
        "Dataset": [name],
        "Topic": [f"kafka/{name}"],
        "CuratedTable": [f"lake/curated/{name}"],
        "Feature": [f"feature/{name}"],
        "QualityRule": [resource.quality_rule.dataset],
        "Model": [f"model/{name}"],
    }.get(resource.kind, [])
