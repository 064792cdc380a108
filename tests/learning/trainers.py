"""Trainers of tests; the training process imports them by name."""

import os
import time
from collections.abc import Awaitable

from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Candidate
from chassis.learning.task import Log, Task


async def good(task: Task, log: Log) -> Candidate:
    """Answers at once; what a library prints is a line of log."""
    log("fitting")
    print("printed by a library")
    return Candidate({"number": b"1"}, ("distance_m",), {"mae": 50.0}, {})


async def talkative(task: Task, log: Log) -> Candidate:
    """Prints more than one call takes, and a line without an end."""
    print("x" * 2**21)
    for number in range(2500):
        log(f"line {number}")
    return await good(task, log)


async def bad_gate(task: Task, log: Log) -> Candidate:
    """A version that its gate refuses."""
    return Candidate({"number": b"1"}, (), {"mae": 500.0}, {})


async def failing(task: Task, log: Log) -> Candidate:
    """Fails with a reason."""
    raise ArterialError(Reason.REFUSED, "12 trips are too few")


async def dying(task: Task, log: Log) -> Candidate:
    """Ends without a word, as one that ran out of memory."""
    os._exit(9)


def endless(task: Task, log: Log) -> Awaitable[Candidate]:
    """Blocks its process for long."""
    log(f"process {os.getpid()}")
    time.sleep(600)
    return good(task, log)
