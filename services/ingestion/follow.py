"""Role `follow`: curated tables, live OLAP tables and the dead-letter topic follow the raw tables' logs, declared tables their sources."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

from clickhouse_connect.driver.asyncclient import AsyncClient

from arterial.api.controlplane.v1 import specs_pb2
from chassis import kafka, olap
from chassis.desired import DesiredFeed, follow_desired
from chassis.lineage import Lineage, emitting
from chassis.logs import logger
from chassis.process import Context
from chassis.resources import Key
from chassis.retiring import retire
from services.ingestion.config import IngestionConfig
from services.ingestion.curated import Curated
from services.ingestion.deadletters import DEAD_LETTERS, DeadLetters
from services.ingestion.deriving import Deriving
from services.ingestion.failures import Failures
from services.ingestion.keeping import keep_promises
from services.ingestion.live import Live
from services.ingestion.retiring import drops
from services.ingestion.standing import say_followed

# How often dead letters are looked for: people read them, so seconds do not matter.
DEAD_LETTER_INTERVAL_MS = 2000
DEFAULT_INTERVAL_MS = 2000
# What lineage calls the followers that make tables.
_JOBS = {specs_pb2.PIPELINE_ROLE_CURATED: "ingestion.curated", specs_pb2.PIPELINE_ROLE_LIVE: "ingestion.live"}
# One step of the follower of a topic; True if there is more at once.
Step = Callable[[str], Awaitable[bool]]
_log = logger(__name__)


async def follow(config: IngestionConfig, context: Context) -> None:
    """Runs all followers until the process is stopped."""
    async with follow_desired(config, context) as feed:
        await kafka.ensure_topics(config.kafka, [DEAD_LETTERS])
        async with emitting(config, context) as lineage, asyncio.TaskGroup() as group:
            followers = Followers(config, context, feed, lineage)
            deriving = Deriving(config, context, feed, olap.Olap(config.olap), lineage)

            def at_work(key: Key) -> bool:
                return followers.follow(key) or deriving.follows(key)

            group.create_task(followers.curated())
            group.create_task(followers.live())
            group.create_task(followers.dead_letters())
            group.create_task(retire(config, context, feed, drops(config), at_work))
            group.create_task(keep_promises(config, context, feed))
            group.create_task(deriving.run())


class Followers:
    """Three loops, each over all topics that its pipeline declares."""

    def __init__(self, config: IngestionConfig, context: Context, feed: DesiredFeed, lineage: Lineage) -> None:
        self._config = config
        self._lineage = lineage
        self._context = context
        self._feed = feed
        # Topics of each loop's last pass.
        self._known: dict[specs_pb2.PipelineRole.ValueType, frozenset[str]] = {}

    def follow(self, key: Key) -> bool:
        """True as long as a loop may be at work on a topic's tables."""
        kind, name = key
        return kind == "Topic" and any(name in known for known in self._known.values())

    async def curated(self) -> None:
        """Raw to curated; heavy, hence one topic at a time and in a thread."""
        tables: dict[str, Curated] = {}

        async def step(name: str) -> bool:
            topic = self._feed.current.topics[name]
            if not topic.curated:
                return False
            table = tables.setdefault(name, Curated(self._config.lake, topic, self._lineage.emit))
            return await asyncio.to_thread(table.step)

        await self._loop(specs_pb2.PIPELINE_ROLE_CURATED, step, lambda name: tables.pop(name, None))

    async def live(self) -> None:
        """Raw to OLAP. Connects as it goes: an OLAP engine that is away must not keep the curated zone from following."""
        tables: dict[str, Live] = {}
        async with AsyncExitStack() as stack:
            client: AsyncClient | None = None

            async def step(name: str) -> bool:
                nonlocal client
                topic = self._feed.current.topics[name]
                if not topic.live:
                    return False
                if client is None:
                    client = await olap.connect(self._config.olap)
                    stack.push_async_callback(client.close)
                table = tables.setdefault(name, Live(self._config.lake, self._config.olap, topic, self._lineage))
                return await table.step(client)

            await self._loop(specs_pb2.PIPELINE_ROLE_LIVE, step, lambda name: tables.pop(name, None))

    async def dead_letters(self) -> None:
        """Dead rows to the dead-letter topic."""
        tables: dict[str, DeadLetters] = {}
        producer = kafka.producer(self._config.kafka)
        await producer.start()

        async def step(name: str) -> bool:
            topic = self._feed.current.topics[name]
            return await tables.setdefault(name, DeadLetters(self._config.lake, topic, self._config.state_dir)).step(producer)

        try:
            await self._loop(specs_pb2.PIPELINE_ROLE_RAW, step, lambda name: tables.pop(name, None), DEAD_LETTER_INTERVAL_MS)
        finally:
            await producer.stop()

    async def _loop(
        self, role: specs_pb2.PipelineRole.ValueType, step: Step, forget: Callable[[str], object], interval_ms: int = 0
    ) -> None:
        failures: dict[str, Failures] = defaultdict(Failures)
        while not self._context.stopping.is_set():
            more, pause_ms = False, interval_ms
            desired, stepped = self._feed.current, set()
            for name in self._known.get(role, frozenset()) - desired.topics.keys():
                # Declared again, its tables may be others.
                forget(name)
                if role in _JOBS:
                    self._lineage.end(f"{_JOBS[role]}.{name}")
                failures.pop(name, None)
            self._known[role] = frozenset(desired.topics)
            for name in sorted(desired.topics):
                pipeline = self._feed.current.pipeline(role, name)
                if pipeline is None or pipeline.paused or self._context.stopping.is_set():
                    continue
                pause_ms = interval_ms or pipeline.interval_ms
                if self._context.clock.now() < failures[name].retry_at:
                    continue
                try:
                    more |= await step(name)
                    failures.pop(name)
                    stepped.add(name)
                except Exception as error:
                    retry_seconds = failures[name].note(self._context.clock.now(), error)
                    _log.exception(
                        "follower failed, beginning again at its own progress",
                        topic=name,
                        role=specs_pb2.PipelineRole.Name(role),
                        retry_seconds=retry_seconds,
                    )
                    forget(name)
            failed = {name: failure.why for name, failure in failures.items() if failure.count}
            say_followed(self._feed, desired, role, frozenset(stepped), failed)
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._context.stopping.wait(), (pause_ms or DEFAULT_INTERVAL_MS) / 1000)
