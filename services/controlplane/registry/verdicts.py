"""One verdict on a schema: everything that its subject's level of compatibility forbids, over all versions that count."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from services.controlplane.registry import avro_rules, json_rules, protobuf_rules, table_rules
from services.controlplane.registry.avro import AvroDocument
from services.controlplane.registry.definition import Compatibility, SchemaViolation
from services.controlplane.registry.json_schema import JsonDocument
from services.controlplane.registry.protobuf import ProtoSchema
from services.controlplane.registry.reading import Understood

RESERVED = "confluent:reserved"


@dataclass(frozen=True)
class Verdict:
    """What forbids a schema, what changes besides, and what its subject demands."""

    violations: Sequence[SchemaViolation]
    changes: Sequence[SchemaViolation]
    level: Compatibility


@dataclass(frozen=True)
class Earlier:
    """A version that the subject has."""

    version: int
    schema: Understood


def judge(new: Understood, earlier: Sequence[Earlier], level: Compatibility, *, table: bool = False) -> Verdict:
    """The verdict on `new` after the `earlier` versions, oldest first; with `table` the rules of declared topics apply, too.

    A step for a thread.
    """
    broken = violations(new, earlier, level, table=table)
    return Verdict(broken, changes(earlier[-1].schema, new, table=table) if earlier else [], level)


def violations(new: Understood, earlier: Sequence[Earlier], level: Compatibility, *, table: bool = False) -> list[SchemaViolation]:
    """All that forbids `new`. The same violation of several versions is told once, of the newest one."""
    told: dict[tuple[str, str], SchemaViolation] = {}
    for old in reversed(earlier if level.transitive else earlier[-1:]):
        _tell(told, old.version, _broken(old.schema, new, level))
    if table:
        # Tables have the columns of every version.
        for old in reversed(earlier):
            _tell(told, old.version, _table(old.schema, new))
    return list(told.values())


def changes(old: Understood, new: Understood, *, table: bool = False) -> list[SchemaViolation]:
    """What changes from one version to the next without breaking anything; with `table` the columns of a declared topic's tables."""
    before, after = old.body, new.body
    if isinstance(before, ProtoSchema) and isinstance(after, ProtoSchema):
        if table:
            return table_rules.changes(before, after)
        return [each for each in protobuf_rules.differences(before, after) if each.rule in protobuf_rules.COMPATIBLE]
    if isinstance(before, JsonDocument) and isinstance(after, JsonDocument):
        return [each for each in json_rules.differences(before, after) if each.rule in json_rules.COMPATIBLE]
    return []


def _tell(told: dict[tuple[str, str], SchemaViolation], version: int, found: Iterable[SchemaViolation]) -> None:
    for violation in found:
        told.setdefault((violation.path, violation.rule), replace(violation, message=f"{violation.message} (version {version})"))


def _broken(old: Understood, new: Understood, level: Compatibility) -> Iterator[SchemaViolation]:
    if old.definition.type is not new.definition.type:
        if level.backward or level.forward:
            text = f"the schema was {old.definition.type} and is {new.definition.type}"
            yield SchemaViolation("#/", "SCHEMA_TYPE_CHANGED", text)
        return
    if level.backward:
        yield from incompatibilities(old, new)
    if level.forward:
        for violation in incompatibilities(new, old):
            yield replace(violation, message=f"{violation.message}, seen from readers of the earlier version")


def incompatibilities(old: Understood, new: Understood) -> list[SchemaViolation]:
    """Why readers of `new` cannot read what `old` wrote."""
    before, after = old.body, new.body
    if isinstance(before, AvroDocument) and isinstance(after, AvroDocument):
        return avro_rules.incompatibilities(reader=after, writer=before)
    names = _reserved(old.definition.metadata), _reserved(new.definition.metadata)
    if isinstance(before, JsonDocument) and isinstance(after, JsonDocument):
        changed = [*json_rules.reserved(*names, after), *json_rules.differences(before, after)]
        return [each for each in changed if each.rule not in json_rules.COMPATIBLE]
    if isinstance(before, ProtoSchema) and isinstance(after, ProtoSchema):
        changed = [*protobuf_rules.reserved(*names, after), *protobuf_rules.differences(before, after)]
        return [each for each in changed if each.rule not in protobuf_rules.COMPATIBLE]
    return []


def _table(old: Understood, new: Understood) -> list[SchemaViolation]:
    if isinstance(old.body, ProtoSchema) and isinstance(new.body, ProtoSchema):
        return table_rules.violations(old.body, new.body)
    return []


def _reserved(metadata: Mapping[str, object] | None) -> frozenset[str]:
    properties = (metadata or {}).get("properties")
    names = properties.get(RESERVED, "") if isinstance(properties, dict) else ""
    return frozenset(name.strip() for name in str(names).split(",") if name.strip())
