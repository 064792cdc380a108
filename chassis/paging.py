"""Pages of lists, by opaque tokens: of a place in the list, or of the key of its last row, which a growing list needs."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chassis.errors import ArterialError, Reason

DEFAULT_PAGE = 100
Row = TypeVar("Row")


def page_bounds(size: int, token: str, list_name: str) -> tuple[int, int]:
    """First and last index of a page. Tokens name their list, so that one cannot be used for another.

    Raises:
        ArterialError: INVALID_PAGE_TOKEN.
    """
    start = _decoded(token, list_name, "start") if token else 0
    if not isinstance(start, int) or start < 0:
        raise ArterialError(Reason.INVALID_PAGE_TOKEN, "the page token is not valid")
    return start, start + (size or DEFAULT_PAGE)


def next_token(end: int, total: int, list_name: str) -> str:
    """Token of the page that begins at `end`; empty if there is none."""
    return _encoded({"list": list_name, "start": end}) if end < total else ""


@dataclass(frozen=True)
class KeyedPage:
    """A page of a list that changes while it is read: it begins after the row with the key `after` (None: at the first row)."""

    list_name: str
    size: int
    after: list[Any] | None

    @property
    def limit(self) -> int:
        """Rows to read: one more than the page has tells whether there is another page."""
        return self.size + 1

    def cut(self, rows: Sequence[Row], key: Callable[[Row], Sequence[str | int]]) -> tuple[Sequence[Row], str]:
        """The rows of the page, of at most `limit` that were read, and the token of the next page ("" for none)."""
        page = rows[: self.size]
        return page, _encoded({"list": self.list_name, "after": list(key(page[-1]))}) if len(rows) > self.size else ""


def keyed_page(size: int, token: str, list_name: str, parts: Sequence[Callable[[Any], Any]]) -> KeyedPage:
    """The page that a request asks for; each part of the key is read by its own function. Tokens name their list.

    Raises:
        ArterialError: INVALID_PAGE_TOKEN.
    """
    if not token:
        return KeyedPage(list_name, size or DEFAULT_PAGE, None)
    key = _decoded(token, list_name, "after")
    try:
        after = [read(part) for read, part in zip(parts, key, strict=True)]
    except (ValueError, TypeError, OverflowError) as error:
        raise ArterialError(Reason.INVALID_PAGE_TOKEN, "the page token is not valid") from error
    return KeyedPage(list_name, size or DEFAULT_PAGE, after)


def _encoded(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def _decoded(token: str, list_name: str, field: str) -> Any:
    try:
        decoded = json.loads(base64.urlsafe_b64decode(token.encode()))
        if decoded["list"] != list_name:
            raise ArterialError(Reason.INVALID_PAGE_TOKEN, "the page token belongs to another list")
        return decoded[field]
    except (ValueError, KeyError, TypeError) as error:
        raise ArterialError(Reason.INVALID_PAGE_TOKEN, "the page token is not valid") from error
