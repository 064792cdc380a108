"""What the contract itself says of resources: its comments and constraints, for people and as JSON Schemas for editors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from arterial.api.controlplane.v1 import resource_pb2
from buf.validate import validate_pb2  # type: ignore[import-untyped]
from chassis.resources import FIELD_OF_KIND

JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
# Numbers of FileDescriptorProto's fields: messages and enums of a file, fields of a message, values of an enum.
_MESSAGES, _ENUMS, _PARTS = 4, 5, 2
_BOUNDS = {"gte": "minimum", "gt": "exclusiveMinimum", "lte": "maximum", "lt": "exclusiveMaximum"}
_WHOLE = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64})


@dataclass(frozen=True)
class Explained:
    """A field, or a whole kind."""

    path: str
    type: str
    text: str
    constraints: str
    fields: tuple["Explained", ...] = ()


class ResourceDocs:
    """Documentation of the resource contract, from the descriptors that were built with it."""

    def explain(self, path: str) -> Explained:
        """A kind ("Dataset") or a field of it ("Dataset.spec.sla"), with the fields within it.

        Raises:
            LookupError: there is none; the message says what there is.
        """
        kind, *steps = path.split(".")
        if kind not in FIELD_OF_KIND:
            raise LookupError(f"{kind} is no kind; there are {', '.join(sorted(FIELD_OF_KIND))}")
        whole = resource_pb2.Resource.DESCRIPTOR
        spec = whole.fields_by_name[FIELD_OF_KIND[kind]]
        if not steps:
            message = _message(spec)
            return Explained(kind, "kind", self._text(message.full_name), "", tuple(self._fields(f"{kind}.spec", message)))
        field = spec if steps[0] == "spec" else whole.fields_by_camelcase_name.get(steps[0])
        for place, step in enumerate(steps[1:], 1):
            within = None if field is None else field.message_type
            field = None if within is None else within.fields_by_camelcase_name.get(step)
            if field is None:
                known = sorted(within.fields_by_camelcase_name) if within is not None else []
                raise LookupError(
                    f"{'.'.join([kind, *steps[:place]])} has no field {step}; there are {', '.join(known) or 'none within it'}"
                )
        if field is None:
            raise LookupError(f"{kind} has no field {steps[0]}; there are metadata, spec, status")
        return self._explained(path, field, deep=True)

    def json_schema(self) -> dict[str, Any]:
        """A JSON Schema of any resource document: what an editor checks and completes files of resources by."""
        metadata = resource_pb2.Resource.DESCRIPTOR.fields_by_name["metadata"]
        definitions: dict[str, Any] = {}
        kinds = []
        for kind, name in sorted(FIELD_OF_KIND.items()):
            spec = resource_pb2.Resource.DESCRIPTOR.fields_by_name[name]
            properties = {
                "apiVersion": {"const": "arterial.dev/v1"},
                "kind": {"const": kind, "description": self._text(_message(spec).full_name)},
                "metadata": self._schema(metadata, definitions),
                "spec": self._schema(spec, definitions),
                "status": {"type": "object"},
            }
            required = ["apiVersion", "kind", "metadata", "spec"]
            kinds.append({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
        return {"$schema": JSON_SCHEMA, "title": "Resource of Arterial", "oneOf": kinds, "$defs": dict(sorted(definitions.items()))}

    @cached_property
    def _texts(self) -> Mapping[str, str]:
        """Comments by full name."""
        found = {}
        encoded = files("arterial.api").joinpath("resources.binpb").read_bytes()
        for file in FileDescriptorSet.FromString(encoded).file:
            places = {tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location}
            messages = [(message.name, [part.name for part in message.field]) for message in file.message_type]
            enums = [(enum.name, [part.name for part in enum.value]) for enum in file.enum_type]
            for number, containers in ((_MESSAGES, messages), (_ENUMS, enums)):
                for index, (container, parts) in enumerate(containers):
                    name = f"{file.package}.{container}"
                    found[name] = places.get((number, index), "")
                    found |= {f"{name}.{part}": places.get((number, index, _PARTS, place), "") for place, part in enumerate(parts)}
        return found

    def _text(self, name: str) -> str:
        return " ".join(self._texts.get(name, "").split())

    def _fields(self, path: str, message: Descriptor) -> Iterator[Explained]:
        return (self._explained(f"{path}.{field.camelcase_name}", field, deep=False) for field in message.fields)

    def _explained(self, path: str, field: FieldDescriptor, *, deep: bool) -> Explained:
        within = field.message_type if deep and field.message_type is not None and not _is_map(field) else None
        texts = [self._text(field.full_name)]
        if field.enum_type is not None:
            values = [value for value in field.enum_type.values if value.number]
            texts += [f"{value.name}: {self._text(f'{field.enum_type.full_name}.{value.name}')}".rstrip(": ") for value in values]
        elif within is not None and not texts[0]:
            texts = [self._text(within.full_name)]
        fields = tuple(self._fields(path, within)) if within is not None else ()
        return Explained(path, _type(field), "\n".join(text for text in texts if text), _constraints(field), fields)

    def _schema(self, field: FieldDescriptor, definitions: dict[str, Any]) -> dict[str, Any]:
        if _is_map(field):
            found: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
        else:
            found = self._schema_of_value(field, definitions)
            if field.is_repeated:
                found = {"type": "array", "items": found}
        text = self._text(field.full_name)
        return found | ({"description": text} if text else {})

    def _schema_of_value(self, field: FieldDescriptor, definitions: dict[str, Any]) -> dict[str, Any]:
        if field.message_type is not None:
            message = field.message_type
            if message.full_name == "google.protobuf.Timestamp":
                return {"type": "string", "format": "date-time"}
            if message.name not in definitions:
                definitions[message.name] = {}
                properties = {each.camelcase_name: self._schema(each, definitions) for each in message.fields}
                definitions[message.name] = {"type": "object", "properties": properties, "additionalProperties": False}
            return {"$ref": f"#/$defs/{message.name}"}
        if field.enum_type is not None:
            return {"enum": [value.name for value in field.enum_type.values if value.number]}
        return _scalar(field)


def _scalar(field: FieldDescriptor) -> dict[str, Any]:
    rules = _rules(field)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        limits = {"pattern": rules.get("pattern"), "minLength": rules.get("min_len"), "maxLength": rules.get("max_len")}
        return {"type": "string"} | {name: value for name, value in limits.items() if value}
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    bounds = {_BOUNDS[name]: value for name, value in rules.items() if name in _BOUNDS}
    return {"type": "integer" if field.cpp_type in _WHOLE else "number"} | bounds


def _rules(field: FieldDescriptor) -> dict[str, Any]:
    """Declared constraints of a field's own type, by name."""
    declared = field.GetOptions().Extensions[validate_pb2.field]
    chosen = declared.WhichOneof("type")
    return {} if chosen is None else {rule.name: value for rule, value in getattr(declared, chosen).ListFields()}


def _constraints(field: FieldDescriptor) -> str:
    told = {name: value for name, value in _rules(field).items() if isinstance(value, int | float | str) and name != "defined_only"}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _type(field: FieldDescriptor) -> str:
    if _is_map(field):
        return "map of texts"
    if field.message_type is not None:
        name = field.message_type.name
    elif field.enum_type is not None:
        name = "enum"
    else:
        name = {"string": "text", "boolean": "true or false"}.get(_scalar(field)["type"], _scalar(field)["type"])
    return f"list of {name}" if field.is_repeated else name


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _message(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None
    return field.message_type
