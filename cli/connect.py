"""Where the services are, and results for people and for programs."""

import argparse
import json
from collections.abc import Iterable, Sequence

from arterial.channel import Channel, connect
from cli.stack import state_of


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
