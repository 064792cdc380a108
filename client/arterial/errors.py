"""The one typed error of Arterial, and its form on the wire (google.rpc.Status with ErrorInfo and BadRequest)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "arterial"


class Reason(StrEnum):
    """Stable reasons, as `arterial.api.types.v1.ErrorReason` declares them."""

    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    REFUSED = "REFUSED"
    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    DENIED = "DENIED"
    DRAINING = "DRAINING"
    INTERNAL = "INTERNAL"
    CANCELLED = "CANCELLED"


STATUS_OF: Mapping[Reason, grpc.StatusCode] = {
    Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_PAGE_TOKEN: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.CONFLICT: grpc.StatusCode.ABORTED,
    Reason.REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.DEPENDENCY_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.LIMIT_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.CANCELLED: grpc.StatusCode.CANCELLED,
}
# What a status without our details means: it came from gRPC itself or from a foreign server.
REASON_OF: Mapping[grpc.StatusCode, Reason] = {
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: Reason.INVALID_REQUEST,
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED: Reason.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: Reason.CONFLICT,
    grpc.StatusCode.ABORTED: Reason.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: Reason.REFUSED,
    grpc.StatusCode.UNAVAILABLE: Reason.DEPENDENCY_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.LIMIT_EXCEEDED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: Reason.DENIED,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
}


# Details travel in a header, of which every client takes 8 KB: characters of one text, and bytes of all violations.
MAX_TEXT, MAX_DETAILS_BYTES = 1000, 4500


@dataclass(frozen=True)
class Violation:
    """One thing wrong with one field of a request."""

    field: str
    description: str


class ArterialError(Exception):
    """What went wrong: a stable reason, a message for people and, for bad requests, a violation per field."""

    def __init__(
        self, reason: Reason, message: str, *, violations: Sequence[Violation] = (), metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        detail = "".join(f"; {violation.field}: {violation.description}" for violation in self.violations)
        return f"{self.reason}: {self.message}{detail}"


def to_status(error: ArterialError) -> status_pb2.Status:
    """The error's form on the wire: as many violations as fit, and how many there are besides."""
    status = status_pb2.Status(code=STATUS_OF[error.reason].value[0], message=_cut(error.message, MAX_TEXT))
    metadata = {name: _cut(value, MAX_TEXT) for name, value in error.metadata.items()}
    details: list[any_pb2.Any] = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=str(error.reason), domain=DOMAIN, metadata=metadata))
    details[1].Pack(error_details_pb2.BadRequest(field_violations=_as_many_as_fit(error.violations)))
    status.details.extend(details if error.violations else details[:1])
    return status


def _as_many_as_fit(violations: Sequence[Violation]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    told: list[error_details_pb2.BadRequest.FieldViolation] = []
    size = 0
    for place, violation in enumerate(violations):
        one = error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=_cut(violation.description, MAX_TEXT))
        size += one.ByteSize()
        if size > MAX_DETAILS_BYTES and told:
            told.append(error_details_pb2.BadRequest.FieldViolation(description=f"and {len(violations) - place} more"))
            break
        told.append(one)
    return told


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."


def from_rpc(error: grpc.aio.AioRpcError) -> ArterialError:
    """The error that crossed the wire; one of a foreign server is given the reason that its status code means."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    fallback = REASON_OF.get(error.code(), Reason.INTERNAL)
    message = error.details() or code_pb2.Code.Name(error.code().value[0])
    if status is None:
        return ArterialError(fallback, message)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        for target in (info, bad):
            if detail.Is(target.DESCRIPTOR):
                detail.Unpack(target)
    reason = Reason(info.reason) if info.domain == DOMAIN and info.reason in Reason.__members__ else fallback
    violations = [Violation(violation.field, violation.description) for violation in bad.field_violations]
    return ArterialError(reason, status.message or message, violations=violations, metadata=dict(info.metadata))
