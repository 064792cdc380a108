"""The schema registry's REST API: what Confluent's clients rely on, codes of errors included."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from arterial.api.controlplane.v1 import schema_registry_service_pb2 as pb
from arterial.api.controlplane.v1 import specs_pb2
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.registry import Rest, grpc, rest

BIKE = 'syntax = "proto3"; package shop; message Bike { int32 id = 1; }'


def record(*fields: Any, name: str = "Ride") -> dict[str, Any]:
    """An Avro record of longs; a field with a default is (name, default)."""
    declared = [
        {"name": each, "type": "long"} if isinstance(each, str) else {"name": each[0], "type": "long", "default": each[1]}
        for each in fields
    ]
    return {"type": "record", "name": name, "fields": declared}


@pytest.fixture
async def api(shared_plane: ControlPlane) -> AsyncIterator[Rest]:
    """The REST API."""
    async with rest(shared_plane) as found:
        yield found


async def test_a_schema_has_one_id_and_one_version_however_often_it_is_registered(api: Rest) -> None:
    """In another subject the same id; white space is no difference."""
    first = await api.register("once-value", record("a"))
    again = await api.register("once-value", json.dumps(record("a"), indent=3))
    other = await api.register("twice-value", record("a"))
    assert first == again == other == (200, {"id": first[1]["id"], "version": 1}) and first[1]["id"] >= 1000
    schema_id = first[1]["id"]
    assert await api("GET", f"/schemas/ids/{schema_id}/versions") == (
        200,
        [{"subject": "once-value", "version": 1}, {"subject": "twice-value", "version": 1}],
    )
    assert (await api("GET", f"/schemas/ids/{schema_id}"))[1] == {"schema": json.dumps(record("a"), separators=(",", ":"))}


async def test_normalized_schemas_are_the_same_whatever_their_order(api: Rest) -> None:
    """Keys of Avro and JSON, fields of Protobuf; without it they are others."""
    one = {"type": "record", "name": "N", "namespace": "shop", "fields": [{"name": "a", "type": {"type": "string"}}]}
    two = {"fields": [{"type": "string", "name": "a"}], "name": "shop.N", "type": "record"}
    ids = [(await api.register(f"norm{place}-value", each, normalize=True))[1]["id"] for place, each in enumerate((one, two))]
    plain = (await api.register("norm3-value", two))[1]["id"]
    texts = ['syntax = "proto3"; message N { int32 a = 1; int32 b = 2; }', 'syntax = "proto3"; message N { int32 b = 2; int32 a = 1; }']
    protos = [(await api.register(f"norm{place}-p", text, "PROTOBUF", normalize=True))[1]["id"] for place, text in enumerate(texts)]
    assert ids[0] == ids[1] != plain and protos[0] == protos[1]
    await api("PUT", "/config/norm5-value", {"normalize": True})
    assert (await api.register("norm5-value", one))[1]["id"] == ids[0]


async def test_an_incompatible_schema_is_refused_with_every_violation(api: Rest) -> None:
    """409 on registering; the verdict names them all on asking."""
    await api.register("broken-value", record("a"))
    worse = {"schema": json.dumps(record("b", "c"))}
    status, body = await api.register("broken-value", record("b", "c"))
    assert (status, body["error_code"]) == (409, 409) and body["message"].count("READER_FIELD_MISSING_DEFAULT_VALUE") == 2
    for path in ("/latest", "/1", ""):
        status, body = await api("POST", f"/compatibility/subjects/broken-value/versions{path}?verbose=true", worse)
        assert (status, body["is_compatible"], len(body["messages"])) == (200, False, 3)
    assert await api("POST", "/compatibility/subjects/broken-value/versions/latest", {"schema": json.dumps(record("a", ("b", 1)))}) == (
        200,
        {"is_compatible": True},
    )


async def test_compatibility_is_configured_for_a_subject_or_for_all(api: Rest) -> None:
    """The nearest configuration counts."""
    assert await api("GET", "/config") == (200, {"compatibilityLevel": "BACKWARD"})
    assert (await api("GET", "/config/level-value"))[1]["error_code"] == 40408
    assert await api("GET", "/config/level-value?defaultToGlobal=true") == (200, {"compatibilityLevel": "BACKWARD"})
    assert await api("PUT", "/config/level-value", {"compatibility": "forward"}) == (200, {"compatibility": "FORWARD"})
    await api.register("level-value", record("a"))
    assert (await api.register("level-value", record("a", "b")))[0] == 200
    assert (await api.register("level-value", record("b")))[0] == 409
    assert await api("DELETE", "/config/level-value") == (200, {"compatibilityLevel": "FORWARD"})
    assert (await api("PUT", "/config/level-value", {"compatibility": "SIDEWAYS"}))[1]["error_code"] == 42203


async def test_deletion_is_soft_at_first(api: Rest) -> None:
    """A softly deleted version is found by its id and with "deleted"; a hard one needs the soft one before; numbers go on."""
    schema_id = (await api.register("gone-value", record("gone")))[1]["id"]
    await api.register("gone-value", record("gone", ("b", 1)))
    assert (await api("DELETE", "/subjects/gone-value/versions/1?permanent=true"))[1]["error_code"] == 40407
    assert await api("DELETE", "/subjects/gone-value/versions/1") == (200, 1)
    assert (await api("DELETE", "/subjects/gone-value/versions/1"))[1]["error_code"] == 40406
    assert (await api("GET", "/subjects/gone-value/versions/1"))[1]["error_code"] == 40402
    assert (await api("GET", "/subjects/gone-value/versions/1?deleted=true"))[1]["deleted"] is True
    assert await api("GET", "/subjects/gone-value/versions") == (200, [2])
    assert await api("GET", "/subjects/gone-value/versions?deleted=true") == (200, [1, 2])
    assert (await api("GET", f"/schemas/ids/{schema_id}"))[0] == 200
    assert (await api("DELETE", "/subjects/gone-value?permanent=true"))[1]["error_code"] == 40405
    assert await api("DELETE", "/subjects/gone-value") == (200, [2])
    assert (await api("DELETE", "/subjects/gone-value"))[1]["error_code"] == 40404
    assert "gone-value" in (await api("GET", "/subjects?deletedOnly=true"))[1] and "gone-value" not in (await api("GET", "/subjects"))[1]
    assert (await api.register("gone-value", record("gone")))[1] == {"id": schema_id, "version": 3}
    await api("DELETE", "/subjects/gone-value")
    assert await api("DELETE", "/subjects/gone-value?permanent=true") == (200, [1, 2, 3])
    assert (await api("GET", f"/schemas/ids/{schema_id}"))[1]["error_code"] == 40403


async def test_what_is_referred_to_stays(api: Rest) -> None:
    """And a reference leads to a version that exists."""
    await api.register("kept-bike", BIKE, "PROTOBUF")
    text = 'syntax = "proto3"; import "b.proto"; message Rental { shop.Bike bike = 1; }'
    where = {"name": "b.proto", "subject": "kept-bike", "version": 1}
    status, body = await api.register("kept-value", text, "PROTOBUF", references=[where])
    assert await api("GET", "/subjects/kept-bike/versions/1/referencedby") == (200, [body["id"]]) and status == 200
    assert (await api("DELETE", "/subjects/kept-bike"))[1]["error_code"] == 42206
    assert (await api.register("kept-value", text, "PROTOBUF", references=[{**where, "version": 7}]))[1]["error_code"] == 42201
    assert (await api.register("kept-value", text, "PROTOBUF"))[1]["error_code"] == 42201
    newest = await api.register("kept-newest", text, "PROTOBUF", references=[{**where, "version": -1}])
    assert newest[1]["id"] == body["id"]


async def test_avro_and_json_schemas_refer_to_others(api: Rest) -> None:
    """By the name of a type, and by a URI."""
    await api.register("bike-avro", record("id", name="shop.Bike"))
    rental: Any = {"type": "record", "name": "Rental", "namespace": "shop", "fields": [{"name": "bike", "type": "Bike"}]}
    where = [{"name": "shop.Bike", "subject": "bike-avro", "version": 1}]
    assert (await api.register("rental-avro", rental, references=where))[0] == 200
    await api.register("bike-json", {"type": "object", "properties": {"id": {"type": "integer"}}}, "JSON")
    rental = {"type": "object", "properties": {"bike": {"$ref": "bike.json"}}}
    where = [{"name": "bike.json", "subject": "bike-json", "version": 1}]
    status, body = await api.register("rental-json", rental, "JSON", references=where)
    assert status == 200 and (await api("GET", f"/schemas/ids/{body['id']}"))[1]["references"] == where
    changed = {"type": "object", "properties": {"bike": {"type": "object", "properties": {"id": {"type": "string"}}}}}
    assert "TYPE_CHANGED" in (await api.register("rental-json", changed, "JSON"))[1]["message"]


async def test_contexts_keep_subjects_apart(api: Rest) -> None:
    """By the subject's name or by the path; ids are one space."""
    name = ":.staging:ctx-value"
    first = await api.register(name, record("a"))
    assert await api("GET", "/contexts") == (200, [".", ".staging"])
    assert await api("GET", "/contexts/staging/subjects") == (200, [name])
    assert name not in (await api("GET", "/subjects"))[1] and name in (await api("GET", "/subjects?subjectPrefix=:*:"))[1]
    assert (await api("GET", "/contexts/.staging/subjects/ctx-value/versions/latest"))[1]["id"] == first[1]["id"]
    assert (await api("GET", "/subjects/ctx-value/versions"))[1]["error_code"] == 40401
    await api("PUT", "/contexts/staging/config", {"compatibility": "NONE"})
    assert (await api.register(name, record("z")))[0] == 200


async def test_modes_forbid_or_import(api: Rest) -> None:
    """Read-only subjects refuse; imported ones keep the id and version that they had elsewhere, and later ids are higher."""
    await api.register("mode-value", record("a"))
    assert await api("PUT", "/mode/mode-value", {"mode": "READONLY"}) == (200, {"mode": "READONLY"})
    assert (await api.register("mode-value", record("a", ("b", 1))))[1]["error_code"] == 42205
    assert (await api("DELETE", "/subjects/mode-value"))[1]["error_code"] == 42205
    assert await api("DELETE", "/mode/mode-value") == (200, {"mode": "READONLY"})
    assert (await api("PUT", "/mode/mode-value", {"mode": "IMPORT"}))[1]["error_code"] == 42205
    await api("PUT", "/mode/import-value", {"mode": "IMPORT"})
    assert await api.register("import-value", record("imported"), id=70_000, version=9) == (200, {"id": 70_000, "version": 9})
    assert (await api.register("import-value", record("imported"), id=70_001))[1]["error_code"] == 42207
    assert (await api.register("import-value", record("another"), id=70_000))[1]["error_code"] == 42205
    assert (await api.register("import-value", record("another"), id=500))[1]["error_code"] == 42205
    assert (await api.register("import-value", record("another")))[1]["error_code"] == 42205
    assert (await api.register("after-import-value", record("later")))[1]["id"] > 70_000
    assert (await api("PUT", "/mode", {"mode": "SLEEP"}))[1]["error_code"] == 42204
    assert (await api("PUT", "/mode", {"mode": "IMPORT"}))[1]["error_code"] == 42205


async def test_built_in_contracts_are_what_the_platform_has(api: Rest) -> None:
    """A declared topic's first version, with references that lead to what it imports."""
    status, found = await api("GET", "/subjects/trip_events_v2-value/versions/1")
    assert (status, found["id"], found["schemaType"]) == (200, 1, "PROTOBUF")
    money = next(each for each in found["references"] if each["name"].endswith("money.proto"))
    path = money["subject"].replace("/", "%2F")
    assert "message Money" in (await api("GET", f"/subjects/{path}/versions/{money['version']}"))[1]["schema"]
    file = FileDescriptorProto.FromString(base64.b64decode((await api("GET", "/schemas/ids/1?format=serialized"))[1]["schema"]))
    assert file.message_type[0].name == "TripEvent"


async def test_subjects_may_have_any_letter(api: Rest) -> None:
    """Escaped in paths."""
    for subject in ("a/b c-value", "käse%-value", "x?y#z"):
        assert (await api.register(subject, record("a")))[0] == 200
        assert subject in (await api("GET", "/subjects"))[1]


@pytest.mark.parametrize(
    ("call", "body", "status", "code"),
    [
        ("GET /subjects/absent/versions", None, 404, 40401),
        ("GET /subjects/trip_events_v2-value/versions/9", None, 404, 40402),
        ("GET /subjects/trip_events_v2-value/versions/zero", None, 422, 42202),
        ("GET /subjects/trip_events_v2-value/versions/0", None, 422, 42202),
        ("GET /schemas/ids/999999", None, 404, 40403),
        ("GET /schemas/ids/x", None, 404, 404),
        ("GET /nowhere", None, 404, 404),
        ("PUT /subjects/a/versions", {}, 405, 405),
        ("POST /subjects/bad/versions", "{", 400, 400),
        ("POST /subjects/bad/versions", "[1]", 400, 400),
        ("POST /subjects/bad/versions", "[" * 50_000, 400, 400),
        ("POST /subjects/bad/versions", {}, 422, 42201),
        ("POST /subjects/bad/versions", {"schema": "nope"}, 422, 42201),
        ("POST /subjects/bad/versions", {"schema": '"string"', "schemaType": "XML"}, 422, 42201),
        ("POST /subjects/bad/versions", {"schema": '"string"', "references": [{}]}, 422, 42201),
        ("POST /subjects/bad/versions", {"schema": '"string"', "id": 5}, 422, 42205),
        ("POST /subjects/bad/versions", {"schema": "\ud800"}, 422, 42201),
        ("POST /subjects/bad/versions", {"schema": '"string"', "metadata": {"\0": 1}}, 422, 42201),
        ("POST /subjects/bad/versions", '{"schema": "\\"string\\"", "metadata": {"properties": {"a": NaN}}}', 422, 42201),
        ("POST /subjects/bad/versions", '{"schema": "1", "references": [{"name": "a", "subject": "b", "version": 1e999}]}', 422, 42201),
        ("POST /subjects/bad/versions", {"schema": '"string"', "id": 2**31}, 422, 42201),
        ("POST /subjects/%01/versions", {"schema": '"string"'}, 422, 42208),
        ("PUT /contexts/%00/config", {"compatibility": "NONE"}, 422, 42208),
        ("GET /schemas?subjectPrefix=%00", None, 422, 42208),
        ("POST /subjects/absent", {"schema": '"string"'}, 404, 40401),
        ("POST /subjects/trip_events_v2-value", {"schema": '"string"'}, 404, 40403),
        ("POST /compatibility/subjects/trip_events_v2-value/versions/9", {"schema": '"string"'}, 404, 40402),
        ("DELETE /subjects/absent", None, 404, 40401),
        ("GET /mode/absent", None, 404, 40409),
    ],
)
async def test_bad_requests_have_confluents_codes(api: Rest, call: str, body: Any, status: int, code: int) -> None:
    """In a body with error_code and message."""
    method, path = call.split(" ", 1)
    found, answer = await api(method, path, body)
    assert (found, answer["error_code"]) == (status, code) and answer["message"]


async def test_other_content_types_are_refused(api: Rest) -> None:
    """JSON in any of Confluent's types is taken."""
    body = json.dumps({"schema": '"string"'})
    found = {
        kind: (await api("POST", "/subjects/typed-value/versions", body, headers={"Content-Type": kind}))[0]
        for kind in ("application/json", "application/vnd.schemaregistry+json", "text/xml")
    }
    assert list(found.values()) == [200, 200, 415]


async def test_grpc_serves_the_same(shared_plane: ControlPlane, api: Rest) -> None:
    """Text by gRPC, found by REST; the level and what breaks it by gRPC."""
    schema = pb.Schema(text=BIKE, type=specs_pb2.SCHEMA_TYPE_PROTOBUF)
    async with grpc(shared_plane) as stub:
        done = await stub.RegisterSchema(pb.RegisterSchemaRequest(subject="both-value", schema=schema))
        assert (await api("GET", "/subjects/both-value/versions/latest"))[1]["id"] == done.schema_id
        full = pb.ConfigureSubjectRequest(subject="both-value", compatibility=specs_pb2.SCHEMA_COMPATIBILITY_FULL)
        await stub.ConfigureSubject(full)
        worse = pb.Schema(text=BIKE.replace("int32", "string"))
        verdict = await stub.CheckSchema(pb.CheckSchemaRequest(subject="both-value", schema=worse))
        assert (verdict.compatible, verdict.compatibility, verdict.violations[0].path) == (
            False,
            specs_pb2.SCHEMA_COMPATIBILITY_FULL,
            "#/Bike/1",
        )
        listed = await stub.ListSubjects(pb.ListSubjectsRequest(prefix="both"))
        assert [(each.subject, each.newest_version) for each in listed.subjects] == [("both-value", 1)]
        avro = await stub.RegisterSchema(
            pb.RegisterSchemaRequest(subject="both-avro", schema=pb.Schema(text='"int"', type=specs_pb2.SCHEMA_TYPE_AVRO))
        )
        found = (await stub.GetSchema(pb.GetSchemaRequest(schema_id=avro.schema_id))).registered
        assert (found.schema.type, found.schema.text, found.subject) == (specs_pb2.SCHEMA_TYPE_AVRO, '"int"', "both-avro")
        gone = await stub.DeleteSubject(pb.DeleteSubjectRequest(subject="both-value"))
    assert list(gone.versions) == [1]
