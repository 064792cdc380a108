"""How a producer says who it is: as metadata of Publish, or as a header of the records that it writes to Kafka itself."""

import re

from arterial.errors import ArterialError, Reason

# Key of the metadata, and name of the header.
PRODUCER = "arterial-producer"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def producer_name(text: str) -> str:
    """The name of a program or team, as given; never that of a person.

    Raises:
        ArterialError: INVALID_REQUEST for what is no name.
    """
    if not _NAME.fullmatch(text):
        what = "1 to 128 letters, digits, dots, dashes and underscores, the first a letter or digit"
        raise ArterialError(Reason.INVALID_REQUEST, f"{PRODUCER} must be {what}, not {text[:200]!r}")
    return text
