"""The schema registry's store: migration, several writers, several replicas, schemas that try to be expensive."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis import resourcefiles, sql
from chassis.config import SqlConfig
from chassis.errors import ArterialError
from chassis.wire import BUILTIN_IDS, descriptor_set
from services.controlplane.__main__ import MIGRATIONS
from services.controlplane.registry.catalogue import Catalogue
from services.controlplane.registry.definition import Compatibility, Definition, SchemaType
from services.controlplane.registry.reading import understand
from services.controlplane.registry.registry import SchemaRegistry
from services.controlplane.registry.verdicts import Earlier, judge
from services.controlplane.resources.store import Edit, ResourceStore, Why
from tests.controlplane.conftest import SEED

TRIPS = "trip_events_v2-value"


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An empty database."""
    found = sql.engine(SqlConfig(url=database_url))
    yield found
    await found.dispose()


async def registry(engine: AsyncEngine) -> SchemaRegistry:
    """A registry over it, with the seed's topics declared."""
    await sql.migrate(engine, MIGRATIONS)
    resources = ResourceStore(engine)
    if await resources.version() == 0:
        topics = [each for each in resourcefiles.read([SEED]) if each.kind == "Topic"]
        edits = [Edit((each.kind, each.metadata.name), each, b"", 0) for each in topics]
        await resources.write(edits, Why("test", "seed"), over=0)
    found = SchemaRegistry(engine)
    await found.prepare()
    return found


def added() -> bytes:
    """The trip event's files, a field more."""
    files = FileDescriptorSet.FromString(descriptor_set(TripEvent.DESCRIPTOR))
    files.file[-1].message_type[0].field.add(name="tip_minor", number=99, type="TYPE_INT64", label="LABEL_OPTIONAL")
    return files.SerializeToString()


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def test_schemas_of_the_first_revision_are_found_by_what_they_are(engine: AsyncEngine) -> None:
    """Their ids stay, their text is printed, and the built-in schema is the first version before them."""
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade, "0002")
        row = {"fingerprint": b"old", "set": added(), "message": TripEvent.DESCRIPTOR.full_name}
        put = "INSERT INTO schemas (fingerprint, file_descriptor_set, message) VALUES (:fingerprint, :set, :message) RETURNING schema_id"
        schema_id = (await connection.execute(sa.text(put), row)).scalar_one()
        await connection.execute(sa.text("INSERT INTO schema_versions VALUES (:subject, 2, :id)"), {"subject": TRIPS, "id": schema_id})
    found = await registry(engine)
    catalogue = Catalogue(found)
    assert [each.schema_id for each in await catalogue.versions(TRIPS)] == [BUILTIN_IDS[TripEvent.DESCRIPTOR.full_name], schema_id]
    stored = await catalogue.schema(schema_id)
    assert "tip_minor" in stored.definition.text and stored.file_descriptor_set == added()
    again = await found.register_set(TRIPS, added(), TripEvent.DESCRIPTOR.full_name)
    assert (again.schema_id, again.version) == (schema_id, 2)


async def test_replicas_give_one_id_and_one_version_each(engine: AsyncEngine) -> None:
    """However many register the same, or different schemas, at once."""
    replicas = [await registry(engine), await registry(engine)]
    same = Definition(SchemaType.AVRO, '"string"')
    others = [Definition(SchemaType.AVRO, json.dumps({"type": "fixed", "name": "F", "size": size})) for size in range(1, 9)]
    done = await asyncio.gather(*(replica.register("race-value", same) for replica in replicas for _ in range(15)))
    assert len(set(done)) == 1
    async with engine.begin() as connection:
        await connection.execute(sa.text("INSERT INTO subject_settings (scope, compatibility) VALUES ('others-value', 'NONE')"))
    done = await asyncio.gather(*(replicas[place % 2].register("others-value", each) for place, each in enumerate(others)))
    assert sorted(each.version for each in done) == list(range(1, 9)) and len({each.schema_id for each in done}) == 8


async def test_after_a_restore_ids_are_asked_for_again(engine: AsyncEngine) -> None:
    """What was kept of an id is not told of the schema that came in its place."""
    found = await registry(engine)
    done = await found.register("restored-value", Definition(SchemaType.AVRO, '"string"'))
    assert (await Catalogue(found).schema(done.schema_id)).definition.text == '"string"'
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE schemas SET text = '\"int\"' WHERE schema_id = :id"), {"id": done.schema_id})
    await found.prepare()
    assert (await Catalogue(found).schema(done.schema_id)).definition.text == '"int"'


async def test_text_may_import_what_the_platform_brings(engine: AsyncEngine) -> None:
    """Without a reference: the registry adds it, so that other clients find it."""
    found = await registry(engine)
    text = 'syntax = "proto3"; import "arterial/api/types/v1/money.proto"; import "buf/validate/validate.proto";'
    text += " message Ride { arterial.api.types.v1.Money fare = 1 [(buf.validate.field).required = true]; }"
    done = await found.register("imports-value", Definition(SchemaType.PROTOBUF, text))
    stored = await Catalogue(found).schema(done.schema_id)
    assert [each.subject for each in stored.definition.references] == ["arterial/api/types/v1/money.proto", "buf/validate/validate.proto"]
    assert await found.register("imports-value", Definition(SchemaType.PROTOBUF, text)) == done
    assert (await found.lookup("imports-value", Definition(SchemaType.PROTOBUF, text))).version == 1


def nested(kind: str) -> str:
    """A schema of schemas of schemas: 30 levels, each twice in the one above."""
    if kind == "PROTOBUF":
        levels = " ".join(f"message M{level} {{ M{level + 1} a = 1; M{level + 1} b = 2; }}" for level in range(30))
        return f'syntax = "proto3"; {levels} message M30 {{ int32 x = 1; }}'
    if kind == "AVRO":
        schema: object = "int"
        for level in range(30):
            fields = [{"name": "a", "type": schema}, {"name": "b", "type": "int" if level == 0 else f"R{level - 1}"}]
            schema = {"type": "record", "name": f"R{level}", "fields": fields}
        return json.dumps(schema)
    inner = [{"$ref": f"#/definitions/d{level + 1}"} for level in range(30)]
    definitions: dict[str, object] = {f"d{level}": {"anyOf": [each, {"not": each}]} for level, each in enumerate(inner)}
    return json.dumps({"definitions": definitions | {"d30": {"type": "string"}}, "$ref": "#/definitions/d0"})


@pytest.mark.parametrize("kind", list(SchemaType))
async def test_schemas_in_schemas_are_compared_once(kind: SchemaType) -> None:
    """Two to the power of thirty comparisons would never end."""
    old = understand(Definition(kind, nested(kind)))
    new = understand(Definition(kind, nested(kind).replace('"int"', '"long"').replace('"string"', '"integer"').replace("int32", "bytes")))
    verdict = await asyncio.wait_for(asyncio.to_thread(judge, new, [Earlier(1, old)], Compatibility.FULL_TRANSITIVE), 60)
    assert verdict.violations


async def test_a_topic_of_a_billion_columns_is_refused(engine: AsyncEngine) -> None:
    """With a clear error."""
    found = await registry(engine)
    with pytest.raises(ArterialError) as caught:
        await found.check(TRIPS, Definition(SchemaType.PROTOBUF, nested("PROTOBUF")))
    assert caught.value.metadata["registry_code"] == "42201" and "columns" in caught.value.violations[0].description
