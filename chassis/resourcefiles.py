"""Resources in files: every error at once, each with file, line and what is allowed instead."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as shortened
from textwrap import shorten
from typing import Any

import yaml
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.resources import FIELD_OF_KIND, from_document
from chassis.rpc.validation import violations_of

# The seed is read by every process as it starts: libyaml takes a tenth of the time, where the wheel has it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SUFFIXES = (".yaml", ".yml", ".json")
# What JSON has for a field of the contract.
_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "true or false": (bool,),
    "a whole number": (int, str),
    "a number": (int, float, str),
}
# JSON writes what lies beyond 16 bits as two halves, which YAML does not know; a backslash before it is taken with what it escapes.
_HALVES = re.compile(r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_WHOLE = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
_KINDS_OF_VALUES = {FieldDescriptor.CPPTYPE_STRING: "text", FieldDescriptor.CPPTYPE_BOOL: "true or false"}


@dataclass(frozen=True)
class Declared:
    """A resource and where it is written."""

    resource: resource_pb2.Resource
    file: Path
    node: Any
    """Its YAML, with positions."""

    def place(self, path: str) -> str:
        """File, line and path of a field, or of the nearest thing around it that is written."""
        return f"{self.file}:{_line(self.node, path)} {path}"


def read(paths: Iterable[Path]) -> list[resource_pb2.Resource]:
    """The resources of files and folders (*.yaml, *.yml, *.json), in order. Raises as `declared` does."""
    return [each.resource for each in declared(paths)]


def declared(paths: Iterable[Path]) -> list[Declared]:
    """The resources of files and folders with their places, in order.

    Raises:
        ArterialError: INVALID_REQUEST with every error of every document, each with file and line.
    """
    found: list[Declared] = []
    violations: list[Violation] = []
    for file in _files(paths):
        try:
            documents = _documents(_text(file))
        except (OSError, UnicodeDecodeError) as error:
            violations.append(Violation(str(file), f"cannot be read: {error}"))
            continue
        except (yaml.YAMLError, RecursionError) as error:
            violations.append(Violation(str(file), f"not YAML: {error}"))
            continue
        for node, document in documents:
            one = Declared(resource_pb2.Resource(), file, node)
            doubles = list(_doubles(node))
            told, resource = ([], one.resource) if doubles else _resource(document, file)
            violations += [Violation(f"{file}:{line} {name}", "is given twice") for line, name in doubles]
            violations += [Violation(one.place(path), why) for path, why in told]
            found.append(replace(one, resource=resource))
    if violations:
        raise ArterialError(Reason.INVALID_REQUEST, "the resources are not valid", violations=violations)
    return found


@contextmanager
def located(written: Sequence[Declared]) -> Iterator[None]:
    """Violations of "resources[i].path", as a service tells them, come out with the file and line of what was sent."""
    try:
        yield
    except ArterialError as error:
        places = [_located(written, violation) for violation in error.violations]
        raise ArterialError(error.reason, error.message, violations=places, metadata=error.metadata) from error


def _located(written: Sequence[Declared], violation: Violation) -> Violation:
    match = re.fullmatch(r"resources\[(\d+)\]\.?(.*)", violation.field)
    if match is None or int(match[1]) >= len(written):
        return violation
    one = written[int(match[1])]
    return Violation(one.place(_path_in_document(one.resource.kind, match[2])), violation.description)


def _resource(document: Any, file: Path) -> tuple[list[tuple[str, str]], resource_pb2.Resource]:
    """What is wrong with a document, by path, and its resource."""
    nothing = resource_pb2.Resource()
    if not isinstance(document, dict):
        return [("", "a resource is a mapping with apiVersion, kind, metadata and spec")], nothing
    kind = str(document.get("kind"))
    if kind not in FIELD_OF_KIND:
        near = get_close_matches(kind, FIELD_OF_KIND, 1) or sorted(FIELD_OF_KIND)
        told = "did you mean " if len(near) == 1 else "there are "
        return [("kind", f"{kind!r} is no kind: {told}{', '.join(near)}")], nothing
    wrong = list(_wrong(document, kind))
    if wrong:
        return wrong, nothing
    try:
        resource = _with_definition(from_document(document), file)
    except ValueError as error:
        return [("", str(error))], nothing
    return [(_path_in_document(kind, broken.field), broken.description) for broken in violations_of(resource)], resource


def _with_definition(resource: resource_pb2.Resource, file: Path) -> resource_pb2.Resource:
    """A schema whose definition stands in a file beside it. Raises ValueError if that cannot be read."""
    name = resource.schema.definition_file if resource.kind == "Schema" else ""
    if name:
        if resource.schema.definition:
            raise ValueError("definition and definitionFile are given both")
        try:
            resource.schema.definition = (file.parent / name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"definitionFile {name}: {error}") from error
        resource.schema.ClearField("definition_file")
    return resource


def _wrong(document: Mapping[str, Any], kind: str) -> Iterator[tuple[str, str]]:
    """Fields that the contract does not have, and values that are of another type than it says."""
    whole = resource_pb2.Resource.DESCRIPTOR
    spec = whole.fields_by_name[FIELD_OF_KIND[kind]]
    known = {"apiVersion", "kind", "metadata", "spec", "status"}
    for name, value in document.items():
        if name not in known:
            yield str(name), _unknown(name, known)
        elif name in ("spec", "metadata"):
            yield from _wrong_value(value or {}, spec if name == "spec" else whole.fields_by_name["metadata"], name)


def _wrong_message(value: Any, message: Descriptor, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield path, f"must be a mapping, not {_told(value)}"
        return
    fields = {name: field for field in message.fields for name in (field.json_name, field.name)}
    for name, inner in value.items():
        if name not in fields:
            yield f"{path}.{name}", _unknown(name, {field.json_name for field in message.fields})
        elif inner is not None:
            yield from _wrong_value(inner, fields[name], f"{path}.{name}")


def _wrong_value(value: Any, field: FieldDescriptor, path: str) -> Iterator[tuple[str, str]]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if not isinstance(value, dict):
            yield path, f"must be a mapping, not {_told(value)}"
            return
        parts = field.message_type.fields_by_name
        for name, inner in value.items():
            yield from _wrong_single(name, parts["key"], f"{path}.{name}")
            yield from _wrong_single(inner, parts["value"], f"{path}.{name}")
    elif field.is_repeated:
        if not isinstance(value, list):
            yield path, f"must be a list, not {_told(value)}"
            return
        for place, inner in enumerate(value):
            yield from _wrong_single(inner, field, f"{path}[{place}]")
    else:
        yield from _wrong_single(value, field, path)


def _wrong_single(value: Any, field: FieldDescriptor, path: str) -> Iterator[tuple[str, str]]:
    if field.message_type is not None:
        if not field.message_type.full_name.startswith("google.protobuf."):
            yield from _wrong_message(value, field.message_type, path)
    elif field.enum_type is not None:
        names = [each.name for each in field.enum_type.values if each.number]
        if value not in names and not isinstance(value, int):
            yield path, f"{_told(value)} is not one of {', '.join(names)}"
    else:
        expected = _KINDS_OF_VALUES.get(field.cpp_type, "a whole number" if field.cpp_type in _WHOLE else "a number")
        if not _is(expected, value):
            yield path, f"must be {expected}, not {_told(value)}"


def _told(value: Any) -> str:
    """A value for people; of what holds others, which may be more than can be told, the beginning."""
    return shorten(shortened(value), 100, placeholder=" ...") if isinstance(value, dict | list) else repr(value)


def _is(expected: str, value: Any) -> bool:
    """Whether a value is what the contract says; JSON may have numbers as texts."""
    if isinstance(value, bool):
        return expected == "true or false"
    if isinstance(value, str) and expected != "text":
        return re.fullmatch(r"-?\d+" if expected == "a whole number" else r"-?\d+(\.\d*)?([eE][+-]?\d+)?", value) is not None
    return isinstance(value, _JSON_TYPES[expected])


def _unknown(name: object, known: Iterable[str]) -> str:
    near = get_close_matches(str(name), list(known), 1)
    told = f"did you mean {near[0]}" if near else f"there are {', '.join(sorted(known))}"
    return f"there is no such field: {told}"


def _path_in_document(kind: str, path: str) -> str:
    """The path in a document of a path in the contract: `quality_rule.min_rows` stands under spec.minRows."""
    first, dot, rest = path.partition(".")
    named = f"spec{dot}{rest}" if first == FIELD_OF_KIND.get(kind) else path
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), named)


def _line(node: Any, path: str) -> int:
    """Line of the deepest part of the path that is written."""
    line = int(node.start_mark.line) + 1
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == step), None)
            if pair is None:
                break
            line, node = int(pair[0].start_mark.line) + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = int(node.start_mark.line) + 1
        else:
            break
    return line


def _text(file: Path) -> str:
    text = file.read_text()
    if file.suffix != ".json":
        return text
    return _HALVES.sub(lambda found: found[0] if found[0] == "\\\\" else json.loads(f'"{found[0]}"'), text)


def _doubles(node: Any) -> Iterator[tuple[int, str]]:
    """Line and name of every field that a mapping has twice, of which YAML would keep the last."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        names = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    yield int(key.start_mark.line) + 1, key.value
                names.add(key.value)
            waiting.append(value)


def _documents(text: str) -> list[tuple[Any, Any]]:
    """The documents of a file that are not empty, each with its node."""
    loader = _LOADER(text)
    found = []
    try:
        while loader.check_node():
            node = loader.get_node()
            found.append((node, loader.construct_document(node)))
    finally:
        loader.dispose()
    return [(node, document) for node, document in found if document is not None]


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ArterialError(Reason.INVALID_REQUEST, f"{path} does not exist")
        files += sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and not file.is_dir()) if path.is_dir() else [path]
    return files
