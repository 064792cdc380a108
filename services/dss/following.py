"""Role `profile`: follows the logs of all registered lake tables and profiles the partitions that their commits touch."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from chassis.backoff import backoff_seconds
from chassis.desired import Desired, DesiredFeed, follow_desired
from chassis.jobs import RETIRE_STATISTICS
from chassis.lineage import emitting
from chassis.logs import logger
from chassis.olap import Olap
from chassis.process import Context
from chassis.resources import Key
from chassis.retiring import retire
from services.dss.config import DssConfig
from services.dss.follower import Follower
from services.dss.profiler import LAKE, Profiler, Target
from services.dss.store import SeriesStore

# A follower is made anew after an error, ever more rarely, and never holds up the other tables.
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
_log = logger(__name__)


def targets_of(desired: Desired) -> Iterator[Target]:
    """The lake tables among the registered datasets, by name."""
    for name, resource in sorted(desired.datasets.items()):
        if name.startswith(LAKE):
            yield Target(name, resource.dataset.market_column)


async def profile(config: DssConfig, context: Context) -> None:
    """Runs until the process is stopped."""
    olap = Olap(config.olap)
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        store = SeriesStore(olap)
        profiler = Profiler(config.lake, store, context.clock, lineage)
        try:
            async with asyncio.TaskGroup() as group:
                following = Following(config, context, feed, profiler)
                group.create_task(following.run())
                group.create_task(retire(config, context, feed, {RETIRE_STATISTICS: partial(forget, store)}, following.follows))
        finally:
            await olap.close()


def datasets_of(key: Key) -> list[str]:
    """The lake tables of a Topic or CuratedTable."""
    kind, name = key
    return [f"{LAKE}{zone}/{name}" for zone in (("raw", "curated") if kind == "Topic" else ("curated",))]


async def forget(store: SeriesStore, key: Key) -> list[str]:
    """Drops the statistics of a Topic's or CuratedTable's lake tables: their next selves begin at version 0."""
    datasets = datasets_of(key)
    for dataset in datasets:
        await store.forget(dataset)
    return [f"statistics of {dataset}" for dataset in datasets]


class Following:
    """One loop over all registered tables: a look for new commits, and a profile where one is due."""

    def __init__(self, config: DssConfig, context: Context, feed: DesiredFeed, profiler: Profiler) -> None:
        self._config = config
        self._context = context
        self._feed = feed
        self._profiler = profiler
        self._followers: dict[Target, Follower] = {}

    def follows(self, key: Key) -> bool:
        """True as long as it may be at work on the tables of a Topic or CuratedTable."""
        datasets = datasets_of(key)
        return any(target.dataset in datasets for target in self._followers)

    async def run(self) -> None:
        """Polls until the process is stopped."""
        while not self._context.stopping.is_set():
            await self.poll()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._context.stopping.wait(), self._config.profile.poll_seconds)

    async def poll(self) -> None:
        """Takes every table a step further."""
        wanted = list(targets_of(self._feed.current))
        for target in self._followers.keys() - set(wanted):
            self._profiler.leave(target)
        self._followers = {target: self._followers.get(target) or self._follower(target) for target in wanted}
        for target, follower in list(self._followers.items()):
            if self._context.stopping.is_set():
                return
            if self._context.clock.now() < follower.rests_until:
                continue
            try:
                await follower.step()
                follower.failures = 0
            except Exception:
                self._followers[target] = self._after(follower)

    def _follower(self, target: Target) -> Follower:
        return Follower(target, self._profiler, self._config, self._context.clock)

    def _after(self, failed: Follower) -> Follower:
        failures = failed.failures + 1
        seconds = backoff_seconds(failures, MIN_RETRY_SECONDS, MAX_RETRY_SECONDS)
        _log.exception("profile failed, beginning again at what is noted", dataset=failed.target.dataset, retry_seconds=seconds)
        follower = self._follower(failed.target)
        follower.failures, follower.rests_until = failures, self._context.clock.now() + seconds
        return follower
