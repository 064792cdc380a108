"""Schemas as resources: read, checked, registered with what they import, told to processes with their files."""

from pathlib import Path

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from chassis.errors import ArterialError, Reason
from chassis.wire import load_descriptor
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import stubs
from tests.terminal import Terminal

HEAD = "apiVersion: arterial.dev/v1\nkind: Schema\n"
THING = 'syntax = "proto3";\npackage t.v1;\nmessage Thing {{ bytes event_id = 1; {fields} }}\n'


def schema(name: str, definition: str, more: str = "") -> str:
    """A document of a Protobuf schema."""
    indented = "".join(f"    {line}\n" for line in definition.splitlines())
    return f"{HEAD}metadata: {{name: {name}}}\nspec:\n  type: SCHEMA_TYPE_PROTOBUF\n{more}  definition: |\n{indented}"


async def test_what_cannot_be_read_is_told_with_its_place(terminal: Terminal, tmp_path: Path) -> None:
    """Before anything is registered."""
    file = tmp_path / "schema.yaml"
    file.write_text(schema("broken_v1", "message {"))
    with pytest.raises(ArterialError) as caught:
        await terminal.text("plan", str(file))
    (violation,) = caught.value.violations
    assert caught.value.reason is Reason.INVALID_REQUEST and f"{file}:6 spec.definition" in violation.field
    assert "main.proto:" in violation.description and "WARNING" not in violation.description


async def test_a_subject_is_of_one_schema(terminal: Terminal, tmp_path: Path) -> None:
    """Else each would be a version of the other."""
    file = tmp_path / "schema.yaml"
    file.write_text(schema("only_v1", THING.format(fields="")))
    await terminal.text("apply", str(file))
    file.write_text(schema("second_v1", THING.format(fields=""), "  subject: only_v1-value\n"))
    with pytest.raises(ArterialError) as caught:
        await terminal.text("plan", str(file))
    assert [violation.description for violation in caught.value.violations] == ["is the subject of Schema/only_v1, too"]
    assert f"{file}:6 spec.subject" in caught.value.violations[0].field


async def test_schemas_of_one_apply_may_import_each_other(terminal: Terminal, tmp_path: Path) -> None:
    """What others refer to is registered first; a circle is refused."""
    file = tmp_path / "schema.yaml"
    using = 'syntax = "proto3";\npackage u.v1;\nimport "t/thing.proto";\nmessage Using { bytes event_id = 1; t.v1.Thing thing = 2; }\n'
    refers = "  references: [{name: t/thing.proto, schema: thing_v1}]\n"
    file.write_text(f"{schema('a_using_v1', using, refers)}---\n{schema('thing_v1', THING.format(fields=''))}")
    await terminal.text("apply", str(file))
    told = (await terminal.document("get", "Schema", "a_using_v1"))["status"]["schema"]
    assert told["message"] == "u.v1.Using" and told["version"] == 1
    circle = [
        schema(name, THING.format(fields=""), f"  references: [{{name: x.proto, schema: {other}}}]\n")
        for name, other in (("b_v1", "c_v1"), ("c_v1", "b_v1"))
    ]
    file.write_text("---\n".join(circle))
    for command in ("plan", "apply"):
        with pytest.raises(ArterialError, match="circle"):
            await terminal.text(command, str(file))


async def test_an_incompatible_schema_passes_only_with_approval(
    terminal: Terminal,
    shared_plane: ControlPlane,
    tmp_path: Path,
) -> None:
    """The level stays what it is; processes get the files that they decode by."""
    file, name = tmp_path / "schema.yaml", "approved_v1"
    for fields, words in (("int64 a = 2;", ()), ("string a = 2;", ("--approve", f"Schema/{name}:spec.definition"))):
        file.write_text(schema(name, THING.format(fields=fields)))
        if words:
            with pytest.raises(ArterialError, match="one-way doors"):
                await terminal.text("apply", str(file))
        await terminal.text("apply", str(file), *words)
    async with stubs(shared_plane) as to:
        reply = await to.control.GetResource(control.GetResourceRequest(kind="Schema", name=name))
    status = reply.resource.status.schema
    assert status.version == 2
    assert load_descriptor(status.file_descriptor_set, status.message).fields_by_name["a"].type == 9
    file.write_text(schema(name, THING.format(fields="bool a = 2;")))
    with pytest.raises(ArterialError, match="one-way doors"):
        await terminal.text("apply", str(file))


async def test_what_comes_too_late_registers_nothing(terminal: Terminal, shared_plane: ControlPlane, tmp_path: Path) -> None:
    """An edit over a version that is no longer the newest is a conflict, and no later version is judged by what it said."""
    file, name = tmp_path / "schema.yaml", "late_v1"
    file.write_text(schema(name, THING.format(fields="")))
    await terminal.text("apply", str(file))
    async with stubs(shared_plane) as to:
        late = (await to.control.GetResource(control.GetResourceRequest(kind="Schema", name=name))).resource
        late.metadata.resource_version -= 1
        late.schema.definition = THING.format(fields="string a = 2;")
        with pytest.raises(ArterialError) as caught:
            await to.control.Apply(control.ApplyRequest(resources=[late]))
    assert caught.value.reason is Reason.CONFLICT
    file.write_text(schema(name, THING.format(fields="int64 a = 2;")))
    await terminal.text("apply", str(file))
    assert (await terminal.document("get", "Schema", name))["status"]["schema"]["version"] == 2


async def test_a_schema_is_judged_by_the_level_that_comes_with_it(terminal: Terminal, tmp_path: Path) -> None:
    """Not by the one that its subject had: a stricter one is a door of the plan, not an end of the apply."""
    file, name = tmp_path / "schema.yaml", "stricter_v1"
    file.write_text(schema(name, THING.format(fields="int64 a = 2;"), "  compatibility: SCHEMA_COMPATIBILITY_NONE\n"))
    await terminal.text("apply", str(file))
    file.write_text(schema(name, THING.format(fields="string a = 2;"), "  compatibility: SCHEMA_COMPATIBILITY_BACKWARD\n"))
    with pytest.raises(ArterialError, match=f"one-way doors need approval: Schema/{name}:spec.definition"):
        await terminal.text("apply", str(file))
    await terminal.text("apply", str(file), "--approve", f"Schema/{name}:spec.definition")
    file.write_text(schema(name, THING.format(fields="bool a = 2;"), "  compatibility: SCHEMA_COMPATIBILITY_NONE\n"))
    await terminal.text("apply", str(file))


async def test_fields_are_columns_whatever_the_names_of_topic_and_schema(terminal: Terminal, tmp_path: Path) -> None:
    """A renamed field is a door, by the subject of its own name or another; so is another subject, or schema of the topic."""
    file = tmp_path / "schema.yaml"
    file.write_text(schema("other_v1", THING.format(fields="")))
    await terminal.text("apply", str(file))
    for name, more in (("shape_v1", ""), ("elsewhere_v1", "  subject: the-shapes\n")):
        topic = (
            f"---\napiVersion: arterial.dev/v1\nkind: Topic\nmetadata: {{name: of_{name}}}\nspec: {{schema: {name}, keyField: event_id}}\n"
        )
        file.write_text(schema(name, THING.format(fields="int64 a = 2;"), more) + topic)
        await terminal.text("apply", str(file))
        file.write_text(schema(name, THING.format(fields="int64 b = 2;"), more))
        with pytest.raises(ArterialError, match="one-way doors") as caught:
            await terminal.text("apply", str(file))
        assert "field_renamed" in caught.value.violations[0].description
        file.write_text(schema(name, THING.format(fields="int64 b = 2;"), "  subject: another\n"))
        with pytest.raises(ArterialError, match=f"Schema/{name}:spec.subject"):
            await terminal.text("apply", str(file))
        file.write_text(topic.replace(f"schema: {name}", "schema: other_v1"))
        with pytest.raises(ArterialError, match=f"Topic/of_{name}:spec.schema"):
            await terminal.text("apply", str(file))
