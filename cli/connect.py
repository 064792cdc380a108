"""Where the services are, and results for people and for programs."""

import argparse
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from arterial.api.types.v1 import page_pb2
from arterial.channel import Channel, connect
from cli.stack import state_of

# Items of one page.
PAGE = 1000


def to_service(arguments: argparse.Namespace, name: str) -> Channel:
    """A channel to a service of the running stack. Raises REFUSED if none runs."""
    return connect(state_of(arguments.data_dir)["addresses"][name])


def show(arguments: argparse.Namespace, document: object, lines: Iterable[str]) -> None:
    """Prints the document for programs, or the lines for people."""
    if arguments.output == "json":
        print(json.dumps(document))
    else:
        for line in lines:
            print(line)


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows as aligned columns; the first is the heading."""
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(str(value).ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in rows]


async def paged(ask: Callable[[page_pb2.PageRequest], Awaitable[Any]], field: str, limit: int | None = None) -> list[Any]:
    """All items of a list that comes in pages, or the first `limit`; `field` of the answer has those of a page."""
    found: list[Any] = []
    token = ""
    while limit is None or len(found) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        reply = await ask(page_pb2.PageRequest(page_size=size, page_token=token))
        found += getattr(reply, field)
        token = reply.page.next_page_token
        if not token:
            break
    return found
