"""The form of a contract case, and what cases share."""

from dataclasses import dataclass

from google.protobuf.message import Message

from arterial.api.types.v1 import page_pb2
from chassis.errors import Reason

LONG = "x" * 300
BAD_PAGE = page_pb2.PageRequest(page_size=5000)


@dataclass(frozen=True)
class Case:
    """A request that is answered, one that breaks the contract in `field`, and the refusals that count as an answer."""

    good: Message
    bad: Message
    field: str
    accepted: frozenset[Reason] = frozenset()
