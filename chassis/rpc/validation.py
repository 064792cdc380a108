"""Requests are held to the constraints that their contract declares (protovalidate)."""

from google.protobuf.message import Message
from protovalidate import Validator
from protovalidate import Violation as RuleViolation

from chassis.errors import ArterialError, Reason, Violation

_VALIDATOR = Validator()


def check(request: Message) -> None:
    """Raises INVALID_REQUEST with one violation per field that breaks a constraint."""
    violations = violations_of(request)
    if violations:
        raise ArterialError(Reason.INVALID_REQUEST, "the request breaks the contract", violations=violations)


def violations_of(message: Message) -> list[Violation]:
    """One violation per field that breaks a constraint; none if the message keeps them all."""
    broken = _VALIDATOR.collect_violations(message)
    return [Violation(_path(violation), violation.proto.message or violation.proto.rule_id) for violation in broken]


def _path(violation: RuleViolation) -> str:
    """For example `resources[0].metadata.name`."""
    parts: list[str] = []
    for element in violation.proto.field.elements if violation.proto.field else []:
        subscript = element.subscript
        suffix = "" if subscript is None else f"[{subscript.value}]"
        parts.append(f"{element.field_name}{suffix}")
    return ".".join(parts)
