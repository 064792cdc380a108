"""Kafka: topics as declared, consumers that read only what was committed, producers that batch."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, LeaderNotAvailableError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from chassis.config import KafkaConfig
from chassis.topics import Topic

# The largest batch of a producer; brokers refuse more than 1 MiB by default, headers and framing included.
MAX_BATCH_BYTES = 900_000
# A topic that is not there for everyone by then will not be: a broker is away.
ANNOUNCE_SECONDS = 30.0
Headers = Sequence[tuple[str, bytes]]

__all__ = [
    "Assignment",
    "KafkaError",
    "backlog",
    "consumer",
    "delete_topic",
    "end_offsets",
    "ensure_topics",
    "partitions",
    "producer",
    "send_all",
    "try_topics",
]


async def ensure_topics(config: KafkaConfig, topics: Iterable[Topic]) -> None:
    """Creates what is missing; what is there stays as it is. Raises KafkaError."""
    for error in (await try_topics(config, topics)).values():
        raise error


async def try_topics(config: KafkaConfig, topics: Iterable[Topic]) -> Mapping[str, KafkaError]:
    """As `ensure_topics`, for who goes on without those that cannot be: why, by name. Raises KafkaError if Kafka is away."""
    admin = AIOKafkaAdminClient(**config.client_options())
    await admin.start()
    try:
        wanted = [
            NewTopic(
                topic.name,
                topic.partitions,
                config.replication_factor,
                topic_configs={"retention.ms": str(topic.retention_seconds * 1000), "max.message.bytes": "1048588"},
            )
            for topic in topics
        ]
        reply = await admin.create_topics(wanted)
        refused: dict[str, KafkaError] = {
            name: for_code(code)(name, *why)
            for name, code, *why in reply.topic_errors
            if code and for_code(code) is not TopicAlreadyExistsError
        }
        late = await _still(admin, [topic.name for topic in wanted if topic.name not in refused], _unannounced)
        told = f"no leader of every partition within {ANNOUNCE_SECONDS:.0f} s"
        return refused | {name: LeaderNotAvailableError(f"{name}: {told}") for name in late}
    finally:
        await admin.close()


async def delete_topic(config: KafkaConfig, name: str) -> None:
    """Deletes a topic and its records; one that is not there is fine. Whoever makes it again then meets nothing of the former one."""
    admin = AIOKafkaAdminClient(**config.client_options())
    await admin.start()
    try:
        reply = await admin.delete_topics([name])
        for topic, code, *_ in reply.topic_error_codes:
            if code and for_code(code) is not UnknownTopicOrPartitionError:
                raise for_code(code)(topic)
        await _still(admin, [name], _known)
    finally:
        await admin.close()


async def _still(admin: AIOKafkaAdminClient, names: list[str], such: Callable[[Any], bool]) -> list[str]:
    """Describes topics until the brokers see none of them as such any more; those that they do after ANNOUNCE_SECONDS."""
    deadline = asyncio.get_running_loop().time() + ANNOUNCE_SECONDS
    while names and asyncio.get_running_loop().time() < deadline:
        names = [topic["topic"] for topic in await admin.describe_topics(names) if such(topic)]
        await asyncio.sleep(0.1 if names else 0)
    return names


def _unannounced(topic: Any) -> bool:
    """Whether a partition has no leader yet: whoever subscribes earlier is assigned nothing of the topic."""
    return bool(topic["error_code"]) or any(part["leader"] < 0 for part in topic["partitions"])


def _known(topic: Any) -> bool:
    """Whether the brokers know the topic: they hear of its end later than who had it deleted."""
    return for_code(topic["error_code"]) is not UnknownTopicOrPartitionError


async def partition_counts(config: KafkaConfig, names: Iterable[str]) -> Mapping[str, int]:
    """How many partitions topics have; those that do not exist are left out. Raises KafkaError."""
    admin = AIOKafkaAdminClient(**config.client_options())
    await admin.start()
    try:
        described = await admin.describe_topics(sorted(set(names)))
    finally:
        await admin.close()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}


def consumer(config: KafkaConfig, *topics: str, **options: Any) -> AIOKafkaConsumer:
    """A consumer that sees committed records only and never guesses a position."""
    defaults = {
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "max_partition_fetch_bytes": 2 * 1024 * 1024,
        "fetch_max_wait_ms": 100,
        # New topics and partitions are seen within this.
        "metadata_max_age_ms": 30_000,
    }
    return AIOKafkaConsumer(*topics, **config.client_options(), **(defaults | options))


def producer(config: KafkaConfig, **options: Any) -> AIOKafkaProducer:
    """An idempotent producer that waits for all replicas."""
    defaults: dict[str, Any] = {
        "enable_idempotence": True,
        "acks": "all",
        "compression_type": "lz4",
        "max_batch_size": MAX_BATCH_BYTES,
        "linger_ms": 0,
    }
    return AIOKafkaProducer(**config.client_options(), **(defaults | options))


async def send_all(
    kafka: AIOKafkaProducer, target: TopicPartition, records: Sequence[tuple[bytes | None, bytes]], headers: Headers = ()
) -> list[int]:
    """Sends (key, value) pairs to one partition, in order, in as few batches as fit; returns their offsets once all replicas have them."""
    futures = []
    counts = []
    builder = kafka.create_batch()
    for key, value in records:
        if builder.append(key=key, value=value, timestamp=None, headers=list(headers)) is None:
            counts.append(builder.record_count())
            futures.append(await kafka.send_batch(builder, target.topic, partition=target.partition))
            builder = kafka.create_batch()
            if builder.append(key=key, value=value, timestamp=None, headers=list(headers)) is None:
                raise ValueError(f"a record of {len(value)} bytes does not fit a batch of {MAX_BATCH_BYTES}")
    if builder.record_count():
        counts.append(builder.record_count())
        futures.append(await kafka.send_batch(builder, target.topic, partition=target.partition))
    offsets: list[int] = []
    for metadata, count in zip(await asyncio.gather(*futures), counts, strict=True):
        offsets.extend(range(metadata.offset, metadata.offset + count))
    return offsets


def partitions(topic: Topic) -> list[TopicPartition]:
    """All partitions of a topic."""
    return [TopicPartition(topic.name, number) for number in range(topic.partitions)]


async def end_offsets(config: KafkaConfig, topics: Sequence[Topic]) -> Mapping[TopicPartition, int]:
    """Last stable offsets (exclusive ends) of all partitions that there are, whatever is declared."""
    counts = await partition_counts(config, [topic.name for topic in topics])
    client = consumer(config)
    await client.start()
    try:
        wanted = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        client.assign(wanted)
        return dict(await client.end_offsets(wanted)) if wanted else {}
    finally:
        await client.stop()


async def backlog(
    config: KafkaConfig, progress: Mapping[TopicPartition, int | None], moments: Sequence[int]
) -> Mapping[TopicPartition, list[int]]:
    """For each partition, how many offsets from its progress on are of a Kafka time before each moment, and how many there are in all.

    Offsets are counted, which may be control records or aborted: one alone, which ends a transaction, counts as none. A partition that its
    topic does not have has none.

    Args:
        config: of the cluster.
        progress: exclusive end of what was taken, by partition; None for nothing.
        moments: milliseconds since 1970, increasing.

    Raises:
        KafkaError: the cluster does not answer, or lacks a topic.
    """
    counts = await partition_counts(config, [partition.topic for partition in progress]) if progress else {}
    wanted = sorted(partition for partition in progress if partition.partition < counts.get(partition.topic, partition.partition + 1))
    if not wanted:
        return {partition: [0] * (len(moments) + 1) for partition in progress}
    client = consumer(config)
    await client.start()
    try:
        client.assign(wanted)
        ends = await client.end_offsets(wanted)
        late = [partition for partition in wanted if ends[partition] - (progress[partition] or 0) > 1]
        first = await client.beginning_offsets(late) if late else {}
        borders = [await client.offsets_for_times(dict.fromkeys(late, moment)) for moment in moments] if late else []
    finally:
        await client.stop()
    found = {partition: [0] * (len(moments) + 1) for partition in progress}
    for partition in late:
        start, end = max(progress[partition] or 0, first[partition]), ends[partition]
        upto = [min(end, end if border[partition] is None else border[partition].offset) for border in borders]
        found[partition] = [max(0, border - start) for border in (*upto, end)]
    return found


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what was assigned; the loop acts on it. The client only logs what its callbacks raise, so nothing is done here."""

    def __init__(self) -> None:
        self.fresh: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()
        self._given = False

    @property
    def settled(self) -> bool:
        """True if what this member reads is known: the group shared the partitions out, and all of it was taken."""
        return self._given and not self.fresh

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Their buffers must be dropped."""
        self._given = False
        self._revoked |= set(revoked)
        self.fresh -= set(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Their progress must be read before anything of theirs is used."""
        self._given = True
        self.fresh |= set(assigned)

    def take(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        """What is gone and what is new since the last call; in both is what a rebalance took and gave back, as whenever topics change."""
        revoked, self._revoked = self._revoked, set()
        fresh, self.fresh = self.fresh, set()
        return revoked, fresh
