"""The values of the schema registry: a schema as it is registered, and where it stands."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from chassis.errors import ArterialError, Reason, Violation


class SchemaType(StrEnum):
    """Languages of schemas, by Confluent's names."""

    PROTOBUF = "PROTOBUF"
    AVRO = "AVRO"
    JSON = "JSON"


class Compatibility(StrEnum):
    """What a new version must be able to do with what was written before, and the readers before it with what it writes."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def transitive(self) -> bool:
        """True if all earlier versions count, not only the newest."""
        return self.value.endswith("_TRANSITIVE")

    @property
    def backward(self) -> bool:
        """True if readers of the new schema must understand the old one's data."""
        return self.value.startswith(("BACKWARD", "FULL"))

    @property
    def forward(self) -> bool:
        """True if readers of the old schema must understand the new one's data."""
        return self.value.startswith(("FORWARD", "FULL"))


class Mode(StrEnum):
    """What may be done with a subject."""

    READWRITE = "READWRITE"
    READONLY = "READONLY"
    READONLY_OVERRIDE = "READONLY_OVERRIDE"
    # Ids and versions are given by whoever registers; nothing is checked.
    IMPORT = "IMPORT"


@dataclass(frozen=True)
class Reference:
    """Another schema that this one imports under `name`."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True)
class Definition:
    """A schema as somebody writes it: a .proto file (or base64 of its FileDescriptorProto), an Avro or a JSON Schema document."""

    type: SchemaType
    text: str
    references: tuple[Reference, ...] = ()
    # As Confluent's data contracts have them; kept, and part of what makes a schema this one.
    metadata: Mapping[str, Any] | None = None
    rule_set: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Registered:
    """Where a schema stands in its subject."""

    schema_id: int
    version: int


@dataclass(frozen=True)
class SchemaViolation:
    """Why a schema is not compatible: a path in it, a stable rule, a text for people."""

    path: str
    rule: str
    message: str


class RegistryCode(StrEnum):
    """Confluent's error codes."""

    SUBJECT_NOT_FOUND = "40401"
    VERSION_NOT_FOUND = "40402"
    SCHEMA_NOT_FOUND = "40403"
    SUBJECT_SOFT_DELETED = "40404"
    SUBJECT_NOT_SOFT_DELETED = "40405"
    VERSION_SOFT_DELETED = "40406"
    VERSION_NOT_SOFT_DELETED = "40407"
    COMPATIBILITY_NOT_CONFIGURED = "40408"
    MODE_NOT_CONFIGURED = "40409"
    INCOMPATIBLE_SCHEMA = "409"
    INVALID_SCHEMA = "42201"
    INVALID_VERSION = "42202"
    INVALID_COMPATIBILITY = "42203"
    INVALID_MODE = "42204"
    OPERATION_NOT_PERMITTED = "42205"
    REFERENCE_EXISTS = "42206"
    ID_DOES_NOT_MATCH = "42207"
    INVALID_SUBJECT = "42208"
    STORE_ERROR = "50001"
    TIMEOUT = "50002"


CODE = "registry_code"


def failure(code: RegistryCode, message: str, violations: tuple[Violation, ...] = ()) -> ArterialError:
    """The error of a code: NOT_FOUND, REFUSED or INVALID_REQUEST, with the code in its metadata."""
    if code.startswith("404"):
        reason = Reason.NOT_FOUND
    elif code in (RegistryCode.INCOMPATIBLE_SCHEMA, RegistryCode.OPERATION_NOT_PERMITTED, RegistryCode.REFERENCE_EXISTS):
        reason = Reason.REFUSED
    else:
        reason = Reason.INVALID_REQUEST
    return ArterialError(reason, message, violations=violations, metadata={CODE: code.value})


def invalid(message: str, *why: str) -> ArterialError:
    """A schema that cannot be read."""
    return failure(RegistryCode.INVALID_SCHEMA, message, tuple(Violation("schema", text) for text in why))


def storable(value: object) -> bool:
    """True if the store can keep all in it: no NUL, no half of a surrogate pair, no number beyond all others or none at all."""
    if isinstance(value, str):
        return "\0" not in value and not any(0xD800 <= ord(letter) < 0xE000 for letter in value)
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, Mapping):
        return all(storable(key) and storable(each) for key, each in value.items())
    return all(map(storable, value)) if isinstance(value, list | tuple) else True


def fingerprint(definition: Definition, canonical: str) -> bytes:
    """What two schemas have in common exactly if they are the same: type, canonical text, references, metadata and rules."""
    references = [[reference.name, reference.subject, reference.version] for reference in definition.references]
    parts = [definition.type, canonical, references, definition.metadata, definition.rule_set]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
