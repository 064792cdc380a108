"""The RPCs of the schema registry: check, call the domain, convert."""

from typing import Any

import grpc

from arterial.api.controlplane.v1 import schema_registry_service_pb2 as pb
from arterial.api.controlplane.v1 import schema_registry_service_pb2_grpc, specs_pb2
from arterial.api.types.v1 import page_pb2
from chassis.paging import next_token, page_bounds
from chassis.wire import BUILTIN_IDS
from services.controlplane.registry.catalogue import Catalogue
from services.controlplane.registry.configuration import Configuration
from services.controlplane.registry.definition import Compatibility, Definition, Mode, Reference, SchemaType, SchemaViolation
from services.controlplane.registry.registry import SchemaRegistry
from services.controlplane.registry.store import Stored

# Answers by id that are kept.
KEPT_ANSWERS = 2000
ServicerContext = grpc.aio.ServicerContext[Any, Any]
TYPES = {
    specs_pb2.SCHEMA_TYPE_UNSPECIFIED: SchemaType.PROTOBUF,
    specs_pb2.SCHEMA_TYPE_PROTOBUF: SchemaType.PROTOBUF,
    specs_pb2.SCHEMA_TYPE_AVRO: SchemaType.AVRO,
    specs_pb2.SCHEMA_TYPE_JSON: SchemaType.JSON,
}


class SchemaRegistryHandler(schema_registry_service_pb2_grpc.SchemaRegistryServiceServicer):
    """Serves SchemaRegistryService."""

    def __init__(self, registry: SchemaRegistry, catalogue: Catalogue, configuration: Configuration) -> None:
        self._registry = registry
        self._catalogue = catalogue
        self._configuration = configuration
        # Answers by id: what an id means never changes.
        self._answers: dict[tuple[int, int], pb.GetSchemaResponse] = {}

    async def RegisterSchema(self, request: pb.RegisterSchemaRequest, context: ServicerContext) -> pb.RegisterSchemaResponse:
        """A version of a subject."""
        sent = request.schema
        if sent.text:
            done = await self._registry.register(request.subject, definition(sent), normalize=request.normalize)
        else:
            done = await self._registry.register_set(request.subject, sent.file_descriptor_set, sent.message)
        return pb.RegisterSchemaResponse(schema_id=done.schema_id, version=done.version)

    async def GetSchema(self, request: pb.GetSchemaRequest, context: ServicerContext) -> pb.GetSchemaResponse:
        """A schema by id."""
        key = request.schema_id, self._registry.library.generation
        found = self._answers.get(key)
        if found is None:
            stored = await self._catalogue.schema(request.schema_id)
            places = await self._catalogue.of_schema(request.schema_id, deleted=True)
            builtin = request.schema_id in BUILTIN_IDS.values()
            subject, version = (places[0].subject, places[0].version) if places else (stored.message, 1)
            found = pb.GetSchemaResponse(registered=registered(stored, subject, version))
            # A built-in schema's subject appears when its topic is declared.
            if places or not builtin:
                if len(self._answers) >= KEPT_ANSWERS:
                    self._answers.clear()
                self._answers[key] = found
        return found

    async def GetSchemaVersion(self, request: pb.GetSchemaVersionRequest, context: ServicerContext) -> pb.GetSchemaVersionResponse:
        """A version of a subject."""
        entry = await self._catalogue.version(request.subject, request.version or -1)
        return pb.GetSchemaVersionResponse(registered=registered(entry.stored, entry.version.subject, entry.version.version))

    async def CheckSchema(self, request: pb.CheckSchemaRequest, context: ServicerContext) -> pb.CheckSchemaResponse:
        """Whether it could be registered."""
        sent, version = request.schema, request.version or None
        if sent.text:
            verdict = await self._registry.judge(request.subject, definition(sent), version=version)
        else:
            verdict = await self._registry.judge_set(request.subject, sent.file_descriptor_set, sent.message, version=version)
        return pb.CheckSchemaResponse(
            compatible=not verdict.violations,
            violations=map(violation, verdict.violations),
            compatibility=compatibility(verdict.level),
            changes=map(violation, verdict.changes),
        )

    async def ListSubjects(self, request: pb.ListSubjectsRequest, context: ServicerContext) -> pb.ListSubjectsResponse:
        """A page of subjects."""
        name = f"subjects/{request.prefix}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        found = await self._catalogue.newest(request.prefix)
        subjects = [
            pb.Subject(
                subject=entry.version.subject,
                newest_version=entry.version.version,
                schema_id=entry.version.schema_id,
                type=specs_pb2.SchemaType.Value(f"SCHEMA_TYPE_{entry.stored.definition.type}"),
            )
            for entry in await self._catalogue.entries(found[start:end])
        ]
        return pb.ListSubjectsResponse(subjects=subjects, page=page_pb2.PageResponse(next_page_token=next_token(end, len(found), name)))

    async def DeleteSubject(self, request: pb.DeleteSubjectRequest, context: ServicerContext) -> pb.DeleteSubjectResponse:
        """Softly at first."""
        if request.version:
            gone = [await self._catalogue.delete_version(request.subject, request.version, permanent=request.permanent)]
        else:
            gone = await self._catalogue.delete_subject(request.subject, permanent=request.permanent)
        self._answers.clear()
        return pb.DeleteSubjectResponse(versions=gone)

    async def ConfigureSubject(self, request: pb.ConfigureSubjectRequest, context: ServicerContext) -> pb.ConfigureSubjectResponse:
        """Only what is given changes."""
        scope = request.subject
        if request.compatibility:
            name = specs_pb2.SchemaCompatibility.Name(request.compatibility).removeprefix("SCHEMA_COMPATIBILITY_")
            await self._configuration.put(scope, compatibility=Compatibility(name).value)
        if request.mode:
            await self._configuration.put_mode(scope, Mode(pb.SubjectMode.Name(request.mode).removeprefix("SUBJECT_MODE_")))
        counts = await self._configuration.effective(scope)
        mode = pb.SubjectMode.Value(f"SUBJECT_MODE_{counts.mode}")
        return pb.ConfigureSubjectResponse(compatibility=compatibility(counts.compatibility), mode=mode)


def definition(sent: pb.Schema) -> Definition:
    """A schema that was sent as text."""
    references = tuple(Reference(each.name, each.subject, each.version) for each in sent.references)
    return Definition(TYPES[sent.type], sent.text, references)


def registered(stored: Stored, subject: str, version: int) -> pb.RegisteredSchema:
    """A schema and where it stands."""
    references = [pb.SubjectReference(name=each.name, subject=each.subject, version=each.version) for each in stored.definition.references]
    schema = pb.Schema(
        file_descriptor_set=stored.file_descriptor_set,
        message=stored.message,
        type=specs_pb2.SchemaType.Value(f"SCHEMA_TYPE_{stored.definition.type}"),
        text=stored.definition.text,
        references=references,
    )
    return pb.RegisteredSchema(schema_id=stored.schema_id, subject=subject, version=version, schema=schema)


def violation(found: SchemaViolation) -> pb.SchemaViolation:
    """A violation."""
    return pb.SchemaViolation(path=found.path, rule=found.rule, message=found.message)


def compatibility(level: Compatibility) -> specs_pb2.SchemaCompatibility.ValueType:
    """A level."""
    return specs_pb2.SchemaCompatibility.Value(f"SCHEMA_COMPATIBILITY_{level}")
