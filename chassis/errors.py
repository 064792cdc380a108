"""The suite's one error type. It is defined with the client, so that callers and services share it."""

from arterial.errors import ArterialError, Reason, Violation

__all__ = ["ArterialError", "Reason", "Violation"]
