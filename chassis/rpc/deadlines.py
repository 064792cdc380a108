"""Deadlines travel with a call: each hop hands on what is left, shaved, so that the caller hears of it before it gives up."""

import contextvars
import time

# Left for the answer to travel back and be handled; without it every hop times out at the same moment and the cause is lost.
SHAVE_SECONDS = 0.01
# On the wire gRPC rounds timeouts up by as much as a hundredth: less than that would not be shaved at all.
SHAVE_SHARE = 0.02
_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("deadline", default=None)


def begin(seconds_left: float | None) -> None:
    """Notes the deadline of the call that the current task serves."""
    _deadline.set(None if seconds_left is None else time.monotonic() + seconds_left)


def left() -> float | None:
    """Seconds left of the call being served, shaved; None outside of a call or without a deadline."""
    deadline = _deadline.get()
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    return max(0.0, remaining - max(SHAVE_SECONDS, SHAVE_SHARE * remaining))


def shaved(timeout: float | None, default: float | None) -> float | None:
    """The timeout of an outgoing call: the caller's own (or the default), but never beyond what is left."""
    wanted = timeout if timeout is not None else default
    remaining = left()
    if remaining is None:
        return wanted
    return remaining if wanted is None else min(wanted, remaining)
