"""Schemas that are declared as resources: checked with the plan, registered with the apply, told to processes with the resource."""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.resources import key_of
from services.controlplane.registry import pins
from services.controlplane.registry.catalogue import Catalogue
from services.controlplane.registry.configuration import Configuration
from services.controlplane.registry.definition import Compatibility, Definition, Reference, SchemaType, SchemaViolation
from services.controlplane.registry.names import join, split
from services.controlplane.registry.registry import SchemaRegistry
from services.controlplane.resources.pinning import pins_of, subject_of
from services.controlplane.resources.planning import Existing

KIND, PATH = "Schema", "spec.definition"
Status = resource_pb2.SchemaStatus


class DeclaredSchemas:
    """What the registry says of Schema resources."""

    def __init__(self, registry: SchemaRegistry, catalogue: Catalogue, configuration: Configuration) -> None:
        self._registry = registry
        self._catalogue = catalogue
        self._configuration = configuration

    async def judge(self, resources: Sequence[resource_pb2.Resource], changes: Sequence[pb.Change], existing: Existing) -> list[Violation]:
        """What cannot be read. What is not compatible becomes a one-way door of its change.

        What refers to a schema that comes with the same apply is judged there. Raises INVALID_REQUEST for a circle of them.
        """
        _in_order({resource.metadata.name: resource for resource in resources if resource.kind == KIND})
        wrong = _shared_subjects(resources, existing)
        for place, (resource, change) in enumerate(zip(resources, changes, strict=True)):
            if resource.kind != KIND or not _is_new(change) or not _resolvable(resource.schema, existing):
                continue
            try:
                broken = await self._broken(resource, existing)
            except ArterialError as error:
                why = "; ".join([error.message, *(violation.description for violation in error.violations)])
                wrong.append(Violation(f"resources[{place}].{PATH}", why))
                continue
            if broken:
                _tell(change, broken)
        return wrong

    async def unknown_pins(self, resources: Sequence[resource_pb2.Resource], existing: Existing) -> list[Violation]:
        """Pins of cells to versions that are not there, with those that are. What is not declared at all is told as a reference."""
        declared = {key_of(resource): resource for resource in resources} | dict(existing)
        wrong = []
        for place, cell in enumerate(resources):
            for index, (name, version) in enumerate(pins_of(cell).items()):
                schema = declared.get((KIND, name))
                if schema is None:
                    continue
                there = await self._versions(subject_of(schema))
                if version not in there:
                    told = f"{KIND}/{name} has no version {version}; there are {', '.join(map(str, there))}"
                    wrong.append(Violation(f"resources[{place}].spec.schemaPins[{index}].version", told))
        return wrong

    async def register(
        self, resources: Iterable[resource_pb2.Resource], approved: frozenset[str], existing: Existing
    ) -> Mapping[str, Status]:
        """Registers schemas, those that others refer to first; returns what the registry made of each, by name.

        Raises:
            ArterialError: REFUSED with the violations of one that is not compatible and not `approved`, by name.
        """
        wanted = {resource.metadata.name: resource for resource in resources if resource.kind == KIND}
        known = {name: resource.status.schema for (kind, name), resource in existing.items() if kind == KIND}
        made: dict[str, Status] = {}
        for name in _in_order(wanted):
            subject = subject_of(wanted[name])
            level = _level(wanted[name].schema)
            definition = _definition(wanted[name].schema, known | made, _subjects(wanted, existing))
            judged_by = Compatibility.NONE if name in approved else level
            registered = await self._registry.register(subject, definition, level=judged_by)
            await self._configuration.put(subject, compatibility=level.value)
            stored = await self._catalogue.schema(registered.schema_id)
            made[name] = pins.status_of(registered.version, stored)
        return made

    async def _versions(self, subject: str) -> list[int]:
        """Versions of a subject; of one that has none yet, the one that this apply makes."""
        try:
            return [each.version for each in await self._catalogue.versions(subject)]
        except ArterialError as error:
            if error.reason is Reason.NOT_FOUND:
                return [1]
            raise

    async def _broken(self, resource: resource_pb2.Resource, existing: Existing) -> list[SchemaViolation]:
        if _level(resource.schema) is Compatibility.NONE:
            return []
        known = {name: other.status.schema for (kind, name), other in existing.items() if kind == KIND}
        definition = _definition(resource.schema, known, _subjects({}, existing))
        return await self._registry.check(subject_of(resource), definition, _level(resource.schema))


def _shared_subjects(resources: Sequence[resource_pb2.Resource], existing: Existing) -> list[Violation]:
    """Schemas with the subject of another: each would be a version of the other, and the level that of the last."""
    declared = {key: resource for key, resource in existing.items() if key[0] == KIND}
    declared |= {key_of(resource): resource for resource in resources if resource.kind == KIND}
    names: dict[str, list[str]] = {}
    for (_, name), resource in sorted(declared.items()):
        names.setdefault(join(*split(subject_of(resource))), []).append(name)
    return [
        Violation(f"resources[{place}].spec.subject", f"is the subject of {KIND}/{other}, too")
        for place, resource in enumerate(resources)
        if resource.kind == KIND
        for other in names[join(*split(subject_of(resource)))]
        if other != resource.metadata.name
    ]


def _is_new(change: pb.Change) -> bool:
    return change.action != pb.Change.ACTION_NONE and any(field.path.startswith("spec.") for field in change.fields)


def _resolvable(spec: specs_pb2.SchemaSpec, existing: Existing) -> bool:
    return all((KIND, each.schema) in existing for each in spec.references)


def _tell(change: pb.Change, broken: Sequence[SchemaViolation]) -> None:
    field = next((field for field in change.fields if field.path == PATH), None) or change.fields.add(path=PATH)
    field.one_way_door = True
    field.reason = "; ".join(f"{each.path or 'the schema'}: {each.rule}: {each.message}" for each in broken)


def _level(spec: specs_pb2.SchemaSpec) -> Compatibility:
    if not spec.compatibility:
        return Compatibility.BACKWARD
    return Compatibility(specs_pb2.SchemaCompatibility.Name(spec.compatibility).removeprefix("SCHEMA_COMPATIBILITY_"))


def _subjects(wanted: Mapping[str, resource_pb2.Resource], existing: Existing) -> Mapping[str, str]:
    known = {name: resource for (kind, name), resource in existing.items() if kind == KIND}
    return {name: subject_of(resource) for name, resource in (known | dict(wanted)).items()}


def _definition(spec: specs_pb2.SchemaSpec, known: Mapping[str, Status], subjects: Mapping[str, str]) -> Definition:
    references = tuple(Reference(each.name, subjects[each.schema], known[each.schema].version) for each in spec.references)
    return Definition(SchemaType(specs_pb2.SchemaType.Name(spec.type).removeprefix("SCHEMA_TYPE_")), spec.definition, references)


def _in_order(wanted: Mapping[str, resource_pb2.Resource]) -> list[str]:
    """Names, those that others refer to first. Raises INVALID_REQUEST if they refer to each other in a circle."""
    graph = {name: [each.schema for each in resource.schema.references if each.schema in wanted] for name, resource in wanted.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"schemas refer to each other in a circle: {', '.join(error.args[1])}") from error


def statuses_into(wanted: Mapping[tuple[str, str], resource_pb2.Resource], made: Mapping[str, Status]) -> None:
    """Puts what was registered into the resources that declare it."""
    for resource in wanted.values():
        if resource.kind == KIND and key_of(resource)[1] in made:
            resource.status.schema.CopyFrom(made[resource.metadata.name])
