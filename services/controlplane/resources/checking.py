"""Whether resources make sense together: what constraints of single fields cannot say. Pure; every violation is found at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.adoption import columns_of
from chassis.errors import Violation
from chassis.expressions import ExpressionError, parse, parse_condition
from chassis.features.windows import DEFAULT_BUCKET_SECONDS
from chassis.resources import FIELD_OF_KIND, key_of
from chassis.topics import topic_from_spec
from chassis.wire import BUILTIN_IDS, Schemas
from services.controlplane.resources.curated_tables import collides, curated_table
from services.controlplane.resources.planning import Existing, same
from services.controlplane.resources.references import references_of
from services.controlplane.resources.tiers import lacking

Told = Iterable[tuple[str, str]]


def violations(resources: Sequence[resource_pb2.Resource], existing: Existing) -> list[Violation]:
    """Wrong kinds, doubles, references to nothing, what a tier demands, and what the specification of a kind cannot mean."""
    wanted = dict(existing) | {key_of(resource): resource for resource in resources}
    rules = _rules(wanted)
    found: list[Violation] = []
    seen = set()
    for index, resource in enumerate(resources):
        told = list(_of_one(resource, wanted, rules))
        if key_of(resource) in seen:
            told.append(("metadata.name", f"{resource.kind}/{resource.metadata.name} is given twice"))
        seen.add(key_of(resource))
        found += [Violation(f"resources[{index}].{path}", why) for path, why in told]
    return found


def elsewhere(resources: Sequence[resource_pb2.Resource], existing: Existing, staying: Existing) -> list[Violation]:
    """What changes and removals make wrong with others that are not given: those that refer to what changes, or that it is about."""
    given = {key_of(resource): resource for resource in resources}
    after = dict(staying) | given
    changed = {key for key, resource in given.items() if key in existing and not same(resource, existing[key])}
    gone = existing.keys() - staying.keys()
    about = {reference.target for key in changed | gone for reference in references_of(existing[key])}
    others = [
        (key, resource)
        for key, resource in (staying.items() if changed or gone else ())
        if key not in given and (key in about or any(reference.target in changed for reference in references_of(resource)))
    ]
    before, rules, then = _rules(existing), _rules(after), []
    for key, resource in others:
        known = set(_of_one(resource, existing, before))
        then += [Violation(f"{'/'.join(key)} {path}", why) for path, why in _of_one(resource, after, rules) if (path, why) not in known]
    return then


def _rules(resources: Existing) -> list[specs_pb2.QualityRuleSpec]:
    return [resource.quality_rule for resource in resources.values() if resource.kind == "QualityRule"]


def _of_one(resource: resource_pb2.Resource, wanted: Existing, rules: Sequence[specs_pb2.QualityRuleSpec]) -> Told:
    if FIELD_OF_KIND.get(resource.kind) != resource.WhichOneof("spec"):
        yield "kind", f"{resource.kind} does not agree with the specification given"
        return
    for reference in references_of(resource):
        if reference.target not in wanted:
            kind, name = reference.target
            near = sorted(other for other_kind, other in wanted if other_kind == kind)
            yield reference.path, f"refers to {kind}/{name}, which does not exist{_nearest(name, near)}"
    if resource.kind == "Dataset":
        for what in lacking(resource, rules):
            yield "spec.tier", f"tier {resource.dataset.tier} demands {what}"
    check = _CHECKS.get(resource.kind)
    if check is not None:
        yield from check(resource, wanted)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _schema(resource: resource_pb2.Resource, _wanted: Existing) -> Told:
    if not resource.schema.definition:
        yield "spec.definition", "the text of the schema is missing (in a file, definitionFile may name another that has it)"
    if resource.schema.definition_file:
        yield "spec.definitionFile", "is for files of resources: clients send the definition itself"


def _topic(resource: resource_pb2.Resource, wanted: Existing) -> Told:
    topic = resource.topic
    if why := collides(resource.metadata.name, wanted):
        yield "metadata.name", why
    if topic.schema and topic.message:
        yield "spec.message", "is for built-in contracts; the declared schema says it"
    elif not topic.schema and topic.message not in BUILTIN_IDS:
        yield "spec.message", f"{topic.message or 'nothing'} is no built-in contract, and no schema is named"
    if topic.routing == specs_pb2.ROUTING_ANY and not topic.HasField("adoption"):
        yield "spec.routing", "ROUTING_ANY is for adopted topics: the streams of a city meet in one partition only by its key"
    for name in ("id", "time") if topic.HasField("adoption") else ():
        try:
            parse(getattr(topic.adoption, name))
        except ExpressionError as error:
            yield f"spec.adoption.{name}", str(error)


def _feature(resource: resource_pb2.Resource, wanted: Existing) -> Told:
    feature = resource.feature
    bucket = feature.bucket_seconds or DEFAULT_BUCKET_SECONDS
    for place, window in enumerate(feature.windows_seconds):
        if window % bucket:
            yield f"spec.windowsSeconds[{place}]", f"{window} is not a multiple of the {bucket} seconds in which windows slide"
    for place, aggregate in enumerate(feature.aggregates):
        counts = aggregate.function == specs_pb2.AGGREGATE_FUNCTION_COUNT
        if counts == bool(aggregate.column):
            yield f"spec.aggregates[{place}].column", "COUNT counts events and takes no column; all others need one"
    names = [aggregate.name for aggregate in feature.aggregates]
    if len(set(names)) < len(names):
        yield "spec.aggregates", "names must differ"
    named = {f"spec.aggregates[{place}].column": aggregate.column for place, aggregate in enumerate(feature.aggregates) if aggregate.column}
    try:
        named |= {f"spec.filter {name}": name for name in parse_condition(feature.filter).columns}
    except ExpressionError as error:
        yield "spec.filter", str(error)
    topic = wanted.get(("Topic", feature.topic))
    known = _columns(topic, wanted) if topic is not None else None
    for path, column in named.items():
        if column and known is not None and column not in known:
            yield path.split(" ")[0], f"{feature.topic} has no column {column}{_nearest(column, sorted(known))}"
    if topic is not None and feature.key != topic.topic.key_field:
        yield "spec.key", f"must be {topic.topic.key_field}, the key of the topic: values of another key would be spread over workers"
    if topic is not None and topic.topic.routing == specs_pb2.ROUTING_ANY:
        yield "spec.topic", "events of a key may lie in any partition of it: values would be spread over workers"


def _columns(resource: resource_pb2.Resource, wanted: Existing) -> frozenset[str] | None:
    """Columns of a topic's events; None if its schema is not registered yet, or of a language that is not read here."""
    topic, schemas = topic_from_spec(resource.metadata.name, resource.topic), Schemas()
    if topic.schema:
        declared = wanted.get(("Schema", topic.schema))
        status = declared.status.schema if declared is not None else resource_pb2.SchemaStatus()
        if not status.file_descriptor_set:
            return None
        schemas.add(status.schema_id, status.file_descriptor_set, status.message)
        schemas.declare(topic.schema, status.schema_id)
    try:
        return frozenset(columns_of(topic, schemas).names)
    except LookupError:
        return None


def _quality_rule(resource: resource_pb2.Resource, _wanted: Existing) -> Told:
    rule = resource.quality_rule
    of_rows = rule.test == specs_pb2.QUALITY_TEST_ROW_COUNT
    if of_rows == bool(rule.columns):
        yield "spec.columns", "a test of the number of rows takes no columns; all others need some"
    bounded = rule.test in (specs_pb2.QUALITY_TEST_ROW_COUNT, specs_pb2.QUALITY_TEST_RANGE)
    if bounded != (rule.HasField("min") or rule.HasField("max")):
        yield "spec.min", "tests of a range or of the number of rows need min or max; others take none"
    if rule.HasField("min") and rule.HasField("max") and rule.min > rule.max:
        yield "spec.max", "is less than min"


def _replication(resource: resource_pb2.Resource, _wanted: Existing) -> Told:
    if resource.replication_policy.from_cell in resource.replication_policy.to_cells:
        yield "spec.toCells", "a cell does not replicate to itself"


_CHECKS: Mapping[str, Callable[[resource_pb2.Resource, Existing], Told]] = {
    "Schema": _schema,
    "Topic": _topic,
    "Feature": _feature,
    "QualityRule": _quality_rule,
    "CuratedTable": curated_table,
    "ReplicationPolicy": _replication,
}
