"""Names of subjects: `:.context:subject`, or the subject alone in the default context, as Confluent writes them."""

import re

from services.controlplane.registry.definition import RegistryCode, failure, storable

DEFAULT_CONTEXT = "."
# What follows the name of a topic, or of a Schema resource, in that of its subject.
SUFFIX = "-value"
_QUALIFIED = re.compile(r":(\.[^:]*):(.*)", re.DOTALL)
# Configuration and mode of everything, and of all subjects of a context, are kept under these.
GLOBAL = ""
MAX_LENGTH = 1000


def qualified(subject: str, context: str = DEFAULT_CONTEXT) -> str:
    """The one form of a subject's name, in `context` unless it names its own.

    Raises:
        ArterialError: 42208 if it cannot be a subject's name.
    """
    own, name = split(subject)
    if own == DEFAULT_CONTEXT and not subject.startswith(":.:"):
        own = context
    if not name or len(subject) > MAX_LENGTH or any(ord(letter) < 0x20 for letter in subject) or not storable(subject):
        raise failure(RegistryCode.INVALID_SUBJECT, f"The specified subject '{subject}' is not a valid subject name")
    return join(own, name)


def split(subject: str) -> tuple[str, str]:
    """Context and name of a subject."""
    found = _QUALIFIED.fullmatch(subject)
    return (found[1], found[2]) if found else (DEFAULT_CONTEXT, subject)


def join(context: str, name: str) -> str:
    """The subject of a context."""
    return name if context == DEFAULT_CONTEXT else f":{context}:{name}"


def context_name(text: str) -> str:
    """A context as a path names it: with or without its dot and colons. Raises 42208 if it cannot be one's name."""
    if not storable(text):
        raise failure(RegistryCode.INVALID_SUBJECT, f"The specified context '{text}' is not a valid context name")
    return "." + text.strip(":").removeprefix(".")


def scopes(subject: str) -> tuple[str, ...]:
    """Where configuration of a subject is looked for, nearest first: itself, its context, everything."""
    context, name = split(subject)
    own = (subject,) if name else ()
    return (*own, GLOBAL) if context == DEFAULT_CONTEXT else (*own, join(context, ""), GLOBAL)
