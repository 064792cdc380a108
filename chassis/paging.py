"""Pages of lists, by opaque tokens."""

import base64
import json

from chassis.errors import ArterialError, Reason

DEFAULT_PAGE = 100


def page_bounds(size: int, token: str, list_name: str) -> tuple[int, int]:
    """First and last index of a page. Tokens name their list, so that one cannot be used for another.

    Raises:
        ArterialError: INVALID_PAGE_TOKEN.
    """
    start = 0
    if token:
        try:
            decoded = json.loads(base64.urlsafe_b64decode(token.encode()))
            start = int(decoded["start"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArterialError(Reason.INVALID_PAGE_TOKEN, "the page token is not valid") from error
        if decoded.get("list") != list_name or start < 0:
            raise ArterialError(Reason.INVALID_PAGE_TOKEN, "the page token belongs to another list")
    return start, start + (size or DEFAULT_PAGE)


def next_token(end: int, total: int, list_name: str) -> str:
    """Token of the page that begins at `end`; empty if there is none."""
    return base64.urlsafe_b64encode(json.dumps({"list": list_name, "start": end}).encode()).decode() if end < total else ""
