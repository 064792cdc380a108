"""Drops the data of resources that are declared no longer, once the control plane says that their retention has passed."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from chassis.config import ServiceConfig
from chassis.desired import DesiredFeed
from chassis.errors import ArterialError, Reason
from chassis.jobs import Held, Work, Worker
from chassis.process import Context
from chassis.resources import Key, key_told
from chassis.rpc.client import channel

# Nobody waits for it.
POLL_SECONDS = 10.0
# Drops something of a resource that was removed, and may be called again after any failure; returns what it dropped, for people.
Drop = Callable[[Key], Awaitable[list[str]]]


async def retire(
    config: ServiceConfig,
    context: Context,
    feed: DesiredFeed,
    drops: Mapping[str, Drop],
    at_work: Callable[[Key], bool],
    *,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Takes the runs of the kinds in `drops` until the process stops; without a control plane there are none.

    Nothing is dropped of what this process is `at_work` on: it writes still, and would take what comes later for what was.
    """
    if config.control_plane is None:
        return
    async with channel(config.control_plane) as connection:
        attempts = {kind: partial(_attempt, feed, at_work, drop) for kind, drop in drops.items()}
        await Worker(config, context, connection, Work(attempts, poll_seconds=poll_seconds)).run()


async def _attempt(feed: DesiredFeed, at_work: Callable[[Key], bool], drop: Drop, held: Held) -> dict[str, str]:
    """Outputs of the run. Raises ArterialError, whatever went wrong: what fails is tried again, and ends nothing else."""
    key = key_told(held.run.subject)
    if key in feed.current.generations or at_work(key):
        raise ArterialError(Reason.REFUSED, f"{held.run.subject} is declared here still, or worked on")
    try:
        dropped = await drop(key)
    except Exception as error:
        raise ArterialError(Reason.INTERNAL, f"{type(error).__name__}: {error}") from error
    for what in dropped:
        held.lines.add(f"dropped {what}")
    return {"dropped": ", ".join(dropped)}
