"""Faults that nobody planned for, one after another, on the whole stack: each is found as what it is, and its correction opens the gate.

A clean day first: no incident may be open. Then, for each seed, a faulty day replaces the good one (a source that supersedes it):
quality must name table, column and market, the partition must be blocked, and the correction must make it ready and resolve the incident.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from arterial.api.dqm.v1alpha1.dqm_service_pb2 import INCIDENT_STATE_RESOLVED, Incident
from chassis.recordfiles import write_records
from cli import storyfiles
from cli.report import tells
from cli.story import Story, StoryError
from deploy.local.supervisor import Stack
from simulator import faults
from simulator.columns import Events
from simulator.faults import Fault
from simulator.history import History

SETTLE_SECONDS = 3600


class Trial:
    """Replaces the last day's events again and again; each file supersedes the one before."""

    def __init__(self, folder: Path, story: Story, day: str, clean: dict[str, Events]) -> None:
        self._folder = folder
        self._story = story
        self._day = day
        self._clean = clean
        self._current: dict[str, str] = {}
        self._files = 0

    async def replace(self, topic: str, events: Events) -> None:
        """Loads events as the day's, in place of what is there."""
        self._files += 1
        path = self._folder / f"{self._files:03d}-{topic}.parquet"
        before = self._current.get(topic)
        self._current[topic] = write_records(path, topic, events.encode(topic), (before,) if before else ())
        await self._story.load(path)

    async def clean_day(self) -> list[Incident]:
        """The day without a fault; what is open then is a false alarm."""
        for topic, events in self._clean.items():
            await self.replace(topic, events)
        await self._story.until(lambda: self._story.all_ready(self._day), "the clean day is ready")
        return await self._open()

    async def fault(self, fault: Fault, seed: int) -> bool:
        """True if the fault was told as what it is, blocked the day, and its correction released it."""
        before = {incident.incident_id for incident in await self._story.incidents()}
        began = time.monotonic()
        await self.replace(fault.topic, faults.inject(self._clean[fault.topic], fault, seed))
        found: list[Incident] = []

        async def told() -> bool:
            found[:] = [incident for incident in await self._story.incidents() if incident.incident_id not in before]
            return bool(found) and not await self._story.all_ready(self._day)

        try:
            await self._story.until(told, f"an incident blocks the day: {fault}")
        except StoryError:
            found.clear()
        seconds = time.monotonic() - began
        right = any(tells(incident, fault) for incident in found)
        for incident in found:
            print(f"    {incident.summary} [{incident.dataset} {','.join(incident.columns)} market {incident.market}]", flush=True)
        await self.replace(fault.topic, self._clean[fault.topic])
        await self._story.until(lambda: self._story.all_ready(self._day), "corrected and ready")
        left = await self._open()
        print(f"seed {seed}: {'detected' if right else 'NOT DETECTED'} in {seconds:.1f} s, {len(left)} incidents left: {fault}", flush=True)
        return right and not left

    async def _open(self) -> list[Incident]:
        return [incident for incident in await self._story.incidents() if incident.state != INCIDENT_STATE_RESOLVED]


async def run(seeds: int, first: int, history_seed: int) -> bool:
    """True if at least ten in twelve faults were detected and no clean day raised an incident."""
    with tempfile.TemporaryDirectory(prefix="arterial-chaos-") as name:
        folder = Path(name)
        files = storyfiles.write(folder / "files", time.time(), seed=history_seed, faulty=False, settle_seconds=SETTLE_SECONDS)
        stack = Stack(folder / "stack")
        await stack.start()
        try:
            async with Story(stack.data_dir, files, stack.places.addresses(), lambda line: print(f"    {line}", flush=True)) as story:
                await story.history()
                calendar = files.calendar
                clean = list(History(calendar.first, history_seed).days(calendar.days))[-1]
                trial = Trial(folder / "files", story, calendar.last.isoformat(), clean)
                alarms = await trial.clean_day()
                print(f"clean day: {len(alarms)} incidents", flush=True)
                right = [await trial.fault(faults.choose(seed), seed) for seed in range(first, first + seeds)]
        finally:
            await stack.stop()
    print(f"{sum(right)} of {len(right)} faults detected with table, column and market, and released by their correction", flush=True)
    return not alarms and sum(right) * 12 >= 10 * len(right)


def main() -> None:
    """Exit status 0 if it held."""
    parser = argparse.ArgumentParser(prog="chaos.fault_story", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="how many faults (default 4, which takes under 5 minutes; 12 take 10)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--history", type=int, default=7, help="seed of the history (default 7)")
    arguments = parser.parse_args()
    sys.exit(0 if asyncio.run(run(arguments.seeds, arguments.first, arguments.history)) else 1)


if __name__ == "__main__":
    main()
