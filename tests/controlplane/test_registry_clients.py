"""Confluent's own client and serialisers against the schema registry."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
from confluent_kafka.schema_registry import Metadata, MetadataProperties, Schema, SchemaReference, SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from arterial.api.controlplane.v1 import schema_registry_service_pb2 as pb
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.wire import BUILTIN_IDS, Schemas, frame, split
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.registry import grpc, rest

T = TypeVar("T")
RIDE = {"type": "record", "name": "Ride", "fields": [{"name": "id", "type": "long"}]}


@pytest.fixture
async def client(shared_plane: ControlPlane) -> AsyncIterator[SchemaRegistryClient]:
    """Confluent's client."""
    async with rest(shared_plane) as api:
        yield SchemaRegistryClient({"url": api.url})


async def aside(call: Callable[[], T]) -> T:
    """Runs a call of a client that blocks."""
    return await asyncio.to_thread(call)


def value(topic: str) -> SerializationContext:
    """The value of a record."""
    return SerializationContext(topic, MessageField.VALUE)


async def test_a_protobuf_record_of_a_declared_topic_has_the_built_in_id(client: SchemaRegistryClient) -> None:
    """Confluent's serialiser finds what the platform brings with it, and writes what the platform reads."""
    trip = TripEvent(event_id=b"1" * 16, city_id=7)
    serializer = ProtobufSerializer(TripEvent, client, {"use.deprecated.format": False})
    written = await aside(lambda: serializer(trip, value("trip_events_v2")))
    assert written == frame(BUILTIN_IDS[TripEvent.DESCRIPTOR.full_name], trip.SerializeToString())


async def test_protobuf_records_go_round(shared_plane: ControlPlane, client: SchemaRegistryClient) -> None:
    """With imports as references; the data plane gets the files of the same schema by gRPC."""
    trip = TripEvent(event_id=b"1" * 16, city_id=8)
    serializer = ProtobufSerializer(TripEvent, client, {"use.deprecated.format": False})
    written = await aside(lambda: serializer(trip, value("round-protobuf")))
    deserializer = ProtobufDeserializer(TripEvent, {"use.deprecated.format": False}, client)
    assert await aside(lambda: deserializer(written, value("round-protobuf"))) == trip
    schema_id, _, payload = split(written)
    async with grpc(shared_plane) as stub:
        found = (await stub.GetSchema(pb.GetSchemaRequest(schema_id=schema_id))).registered.schema
    assert "arterial/api/types/v1/money.proto" in [each.name for each in found.references]
    schemas = Schemas({schema_id: (found.file_descriptor_set, found.message)})
    decoder = schemas.get(schema_id)
    assert decoder is not None and decoder.decode([payload]).column("city_id").to_pylist() == [8]


async def test_avro_records_go_round(client: SchemaRegistryClient) -> None:
    """Written with one version, read with the next."""
    serializer = AvroSerializer(client, json.dumps(RIDE))
    written = await aside(lambda: serializer({"id": 9}, value("round-avro")))
    newer = {**RIDE, "fields": [*RIDE["fields"], {"name": "tip", "type": "int", "default": 3}]}
    deserializer = AvroDeserializer(client, json.dumps(newer))
    assert await aside(lambda: deserializer(written, value("round-avro"))) == {"id": 9, "tip": 3}


async def test_json_records_go_round(client: SchemaRegistryClient) -> None:
    """Valid ones; an invalid one is refused by the serialiser, which has its schema from the registry's answer."""
    schema = {"title": "Ride", "type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    serializer = JSONSerializer(json.dumps(schema), client)
    written = await aside(lambda: serializer({"id": 4}, value("round-json")))
    deserializer = JSONDeserializer(None, schema_registry_client=client)
    assert await aside(lambda: deserializer(written, value("round-json"))) == {"id": 4}


async def test_text_with_references_is_compiled_and_shared_with_base64(client: SchemaRegistryClient) -> None:
    """A .proto file that imports another subject; the same file as base64 of its descriptor has the same id."""
    await aside(
        lambda: client.register_schema("bike.proto", Schema('syntax = "proto3"; package shop; message Bike { int32 id = 1; }', "PROTOBUF"))
    )
    text = 'syntax = "proto3"; import "bike.proto"; message Rental { shop.Bike bike = 1; map<string, int64> fees = 2; }'
    references = [SchemaReference("bike.proto", "bike.proto", 1)]
    schema_id = await aside(lambda: client.register_schema("rentals-value", Schema(text, "PROTOBUF", references)))
    found = await aside(lambda: client.get_schema(schema_id))
    assert (found.schema_str, [each.name for each in found.references or []]) == (text, ["bike.proto"])
    serialized = await aside(lambda: client.get_schema(schema_id, fmt="serialized"))
    again = await aside(lambda: client.register_schema("other-value", Schema(serialized.schema_str, "PROTOBUF", references)))
    assert again == schema_id and await aside(lambda: client.get_referenced_by("bike.proto", 1)) == [schema_id]


async def test_the_client_manages_subjects(client: SchemaRegistryClient) -> None:
    """Versions, look-up, compatibility, configuration, modes and deletion by the client's own functions."""
    one = Schema(json.dumps(RIDE), "AVRO")
    two = Schema(json.dumps({**RIDE, "fields": [*RIDE["fields"], {"name": "tip", "type": "int"}]}), "AVRO")

    def all_of_it() -> Any:
        schema_id = client.register_schema("managed-value", one)
        assert client.lookup_schema("managed-value", one).version == 1 and client.get_latest_version("managed-value").schema_id == schema_id
        assert not client.test_compatibility("managed-value", two) and "managed-value" in client.get_subjects()
        with pytest.raises(SchemaRegistryError) as refused:
            client.register_schema("managed-value", two)
        client.set_compatibility("managed-value", "NONE")
        assert client.get_compatibility("managed-value") == "NONE"
        client.register_schema("managed-value", two)
        client.update_mode("managed-value", "READONLY")
        with pytest.raises(SchemaRegistryError) as readonly:
            client.register_schema("managed-value", Schema('"string"', "AVRO"))
        client.update_mode("managed-value", "READWRITE")
        assert client.get_versions("managed-value") == [1, 2]
        assert client.delete_subject("managed-value") == [1, 2]
        assert client.delete_subject("managed-value", permanent=True) == [1, 2]
        with pytest.raises(SchemaRegistryError) as gone:
            client.get_versions("managed-value")
        return [(error.value.http_status_code, error.value.error_code) for error in (refused, readonly, gone)]

    assert await aside(all_of_it) == [(409, 409), (422, 42205), (404, 40401)]


async def test_a_version_is_found_by_its_metadata(client: SchemaRegistryClient) -> None:
    """The newest one that has the properties; metadata make another schema."""

    def all_of_it() -> list[int | None]:
        for owner in ("city", "risk", "city"):
            client.register_schema(
                "meta-value", Schema(json.dumps(RIDE), "AVRO", metadata=Metadata(None, MetadataProperties({"owner": owner}), None))
            )
        found = [client.get_latest_with_metadata("meta-value", {"owner": owner}).version for owner in ("city", "risk")]
        with pytest.raises(SchemaRegistryError) as absent:
            client.get_latest_with_metadata("meta-value", {"owner": "maps"})
        return [*found, absent.value.error_code]

    assert await aside(all_of_it) == [1, 2, 40403]
