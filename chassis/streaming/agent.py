"""Faust agents over a log of partials: rewound to checkpoints at every assignment, reading committed records only."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import faust
from aiokafka import TopicPartition
from faust.contrib.asgi import faust_app_running
from faust.transport.drivers import aiokafka as driver

from chassis import kafka
from chassis.config import KafkaConfig
from chassis.logs import logger
from chassis.process import Context
from chassis.topics import Topic

POLL_MS = 200
_log = logger(__name__)


class Merger(Protocol):
    """What a service does with partials. State is per partition."""

    async def restore(self, partition: int) -> int:
        """Loads the newest checkpoint; returns the offset to read on from."""

    async def handle(self, partition: int, offset: int, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        """Takes one partial; must not raise for a bad one, but dead-letter it."""


class _CommittedThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Without transactions of its own Faust would read aborted records too."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer


def _consumer_class(rewind: Callable[[set[Any]], Awaitable[dict[Any, int]]]) -> type:
    class Rewound(driver.Consumer):  # type: ignore[misc]
        def _new_consumer_thread(self) -> Any:
            return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

        async def seek_to_committed(self) -> Mapping[Any, int]:
            """Faust's own committed offsets are for displays only: the state's offset decides."""
            committed = dict(await super().seek_to_committed())
            offsets = await rewind(set(self.assignment()))
            for tp, offset in offsets.items():
                self._thread.seek(tp, offset)
            return committed | offsets

    return Rewound


class AgentProcess:
    """One Faust worker with one agent, concurrency 1."""

    def __init__(self, name: str, config: KafkaConfig, topic: Topic, merger: Merger, context: Context) -> None:
        self._name = name
        self._config = config
        self._topic = topic
        self._merger = merger
        self._context = context

    async def run(self) -> None:
        """Runs until the process is stopped. Raises if Faust crashed: without its own worker it would only log that."""
        app = self._app()
        app.transport.Consumer = _consumer_class(self._rewind)
        async with faust_app_running(app):
            stopping = asyncio.create_task(self._context.stopping.wait())
            ended = asyncio.create_task(app.wait_until_stopped())
            await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if app.crashed or not self._context.stopping.is_set():
                raise RuntimeError(f"the Faust application stopped by itself: {app.crash_reason!r}")

    def _app(self) -> Any:
        options = self._config.client_options()
        credentials = None
        if options.get("sasl_mechanism"):
            mechanism, username, password = (options[f"sasl_{key}"] for key in ("mechanism", "plain_username", "plain_password"))
            credentials = faust.SASLCredentials(
                username=username, password=password, mechanism=mechanism, ssl_context=options.get("ssl_context")
            )
        elif options.get("ssl_context"):
            credentials = faust.SSLCredentials(options["ssl_context"])
        app = faust.App(
            self._name,
            broker=";".join(f"kafka://{address.strip()}" for address in self._config.bootstrap.split(",")),
            broker_credentials=credentials,
            broker_session_timeout=10,
            broker_heartbeat_interval=3,
            consumer_auto_offset_reset="earliest",
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            store="memory://",
            value_serializer="raw",
            key_serializer="raw",
        )
        topic = app.topic(self._topic.name, value_serializer="raw", key_serializer="raw")

        async def agent(stream: Any) -> None:
            async for event in stream.events():
                message = event.message
                headers = dict(message.headers or {})
                await self._merger.handle(message.partition, message.offset, event.value, headers)

        app.agent(topic, concurrency=1, name=f"{self._name}.agent")(agent)
        return app

    async def _rewind(self, assigned: set[Any]) -> dict[Any, int]:
        """Restores each partition and reads on to the last stable offset: bulk reads are five times faster than the agent."""
        mine = {tp for tp in assigned if tp.topic == self._topic.name}
        return {tp: await self._replay(tp.partition) for tp in sorted(mine, key=lambda tp: int(tp.partition))}

    async def _replay(self, partition: int) -> int:
        tp = TopicPartition(self._topic.name, partition)
        client = kafka.consumer(self._config)
        await client.start()
        try:
            restored = await self._merger.restore(partition)
            end = (await client.end_offsets([tp]))[tp]
            position = max(restored, int((await client.beginning_offsets([tp]))[tp]))
            client.assign([tp])
            client.seek(tp, position)
            while position < end:
                for records in (await client.getmany(timeout_ms=POLL_MS)).values():
                    for record in records:
                        await self._merger.handle(partition, record.offset, record.value, dict(record.headers))
                position = int(await client.position(tp))
        finally:
            await client.stop()
        if position > restored:
            _log.info("replayed", partition=partition, start=restored, end=position)
        return position
