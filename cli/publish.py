"""`arterial publish` and `arterial feature`: records of a topic in, values of declared features out."""

import argparse
import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc as control_stubs
from arterial.api.controlplane.v1 import resource_pb2
from arterial.api.controlplane.v1 import schema_registry_service_pb2 as registry
from arterial.api.controlplane.v1 import schema_registry_service_pb2_grpc as registry_stubs
from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from arterial.api.ingestion.v1 import ingestion_service_pb2_grpc as grpc_stubs
from arterial.channel import Channel
from arterial.producers import PRODUCER
from chassis import kv
from chassis.config import CellConfig, KvConfig
from chassis.errors import ArterialError, Reason, Violation
from chassis.features.store import FeatureStore
from chassis.wire import BUILTIN_IDS, load_descriptor, message_descriptor
from cli.connect import show, to_service
from cli.stack import state_of

FRAME_RECORDS = 500
TIMESTAMP = "google.protobuf.Timestamp"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    publish = commands.add_parser("publish", help="publish records, one JSON object a line; event_id and event_time are made if absent")
    publish.add_argument("topic")
    publish.add_argument("file", type=Path, nargs="?", help="by default standard input")
    publish.add_argument("--producer", default="arterial-cli", metavar="NAME", help="who publishes, for lineage (default: arterial-cli)")
    publish.set_defaults(run=run_publish)
    feature = commands.add_parser("feature", help="the live value of a declared feature")
    feature.add_argument("name")
    feature.add_argument("key")
    feature.set_defaults(run=run_feature)


async def run_publish(arguments: argparse.Namespace) -> int:
    """Exit status 1 if a record was rejected."""
    text = _read(arguments.file) if arguments.file else sys.stdin.read()
    async with to_service(arguments, "controlplane") as channel:
        schema_id, descriptor = await written_with(channel, arguments.topic)
    lines, payloads = encoded(text, descriptor)
    rejected: list[dict[str, Any]] = []
    async with to_service(arguments, "ingestion") as channel:
        stub: Any = grpc_stubs.IngestionServiceStub(channel)
        async for reply in stub.Publish(_frames(arguments.topic, schema_id, payloads), metadata=((PRODUCER, arguments.producer),)):
            first = reply.frame_id * FRAME_RECORDS
            rejected += [{"line": lines[first + each.index], "reason": each.reason, "message": each.message} for each in reply.rejected]
    told = [f"line {each['line']}: {each['reason']}: {each['message']}" for each in rejected]
    done = len(payloads) - len(rejected)
    show(arguments, {"published": done, "rejected": rejected}, [*told, f"{done} of {len(payloads)} records published to {arguments.topic}"])
    return 1 if rejected else 0


async def run_feature(arguments: argparse.Namespace) -> int:
    """Exit status 1 if there is no value."""
    redis = kv.connect(KvConfig(url=state_of(arguments.data_dir)["addresses"]["redis"]))
    try:
        found = await FeatureStore(redis).read(arguments.name, arguments.key)
    finally:
        await redis.aclose()
    show(arguments, found, [f"{name}: {value}" for name, value in sorted(found.items())] or [f"no value for {arguments.key}"])
    return 0 if found else 1


async def written_with(channel: Channel, topic: str) -> tuple[int, Descriptor]:
    """Id and message of what is written to a topic: a built-in contract, or the declared schema, at the version that the stack's cell pins.

    Raises:
        ArterialError: NOT_FOUND for a topic that is not declared; REFUSED for a schema that is not of Protobuf.
    """
    stub: Any = control_stubs.ControlPlaneServiceStub(channel)
    declared = (await stub.GetResource(control.GetResourceRequest(kind="Topic", name=topic))).resource.topic
    if not declared.schema:
        return BUILTIN_IDS[declared.message], message_descriptor(declared.message)
    schema = (await stub.GetResource(control.GetResourceRequest(kind="Schema", name=declared.schema))).resource
    pinned = [each for each in schema.status.conditions if each.type == "Pinned" and each.cell == CellConfig().name]
    status = schema.status.schema if not pinned else await _pinned(channel, schema)
    if not status.file_descriptor_set:
        raise ArterialError(Reason.REFUSED, f"Schema {declared.schema} is no Protobuf schema: use a client of its language")
    return status.schema_id, load_descriptor(status.file_descriptor_set, status.message)


async def _pinned(channel: Channel, schema: resource_pb2.Resource) -> resource_pb2.SchemaStatus:
    """The schema at the version that the stack's cell pins."""
    name, stub = schema.metadata.name, control_stubs.ControlPlaneServiceStub(channel)
    cell = (await stub.GetResource(control.GetResourceRequest(kind="Cell", name=CellConfig().name))).resource.cell
    version = next(pin.version for pin in cell.schema_pins if pin.schema == name)
    request = registry.GetSchemaVersionRequest(subject=schema.schema.subject or f"{name}-value", version=version)
    found = (await registry_stubs.SchemaRegistryServiceStub(channel).GetSchemaVersion(request)).registered
    return resource_pb2.SchemaStatus(
        schema_id=found.schema_id, version=version, message=found.schema.message, file_descriptor_set=found.schema.file_descriptor_set
    )


def _read(file: Path) -> str:
    """Raises INVALID_REQUEST for what cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"{file} cannot be read: {error}") from error


def encoded(text: str, descriptor: Descriptor) -> tuple[list[int], list[bytes]]:
    """The lines in which records stand, and the records. Raises INVALID_REQUEST with every line that is no record."""
    make = message_factory.GetMessageClass(descriptor)
    lines, found, wrong = list[int](), list[bytes](), list[Violation]()
    # Not `splitlines`: JSON may have all other ends of lines within a text.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(_record(json.loads(line), make()).SerializeToString())
            lines.append(number)
        except (ValueError, RecursionError, json_format.ParseError) as error:
            wrong.append(Violation(f"line {number}", str(error)))
    if wrong:
        raise ArterialError(Reason.INVALID_REQUEST, f"not records of {descriptor.full_name}; nothing was published", violations=wrong)
    return lines, found


def _record(document: Any, record: Any) -> Any:
    if not isinstance(document, dict):
        raise ValueError("a record is a JSON object")
    json_format.ParseDict(document, record)
    # Events of others may have neither, or mean something else by them.
    known = record.DESCRIPTOR.fields_by_name
    identity, moment = known.get("event_id"), known.get("event_time")
    if identity is not None and identity.type == identity.TYPE_BYTES and not record.event_id:
        record.event_id = uuid.uuid4().bytes
    if (
        moment is not None
        and moment.message_type is not None
        and moment.message_type.full_name == TIMESTAMP
        and not record.HasField("event_time")
    ):
        record.event_time.FromNanoseconds(time.time_ns() // 1000 * 1000)
    return record


def _frames(topic: str, schema_id: int, payloads: list[bytes]) -> Iterator[pb.PublishRequest]:
    for number, first in enumerate(range(0, len(payloads), FRAME_RECORDS)):
        records = payloads[first : first + FRAME_RECORDS]
        yield pb.PublishRequest(frame_id=number, topic=topic, schema_id=schema_id, records=records)
