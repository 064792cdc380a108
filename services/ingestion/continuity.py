"""Is Kafka's log still the one that the table knows? Asked at every assignment (one-way door 6 of the design)."""

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from chassis import kafka
from chassis.config import KafkaConfig
from chassis.errors import ArterialError, Reason
from services.ingestion.raw import RawTable
from services.ingestion.rows import crc

# Reading one record back may take this long before Kafka counts as away.
READ_BACK_SECONDS = 15.0


class Continuity:
    """Compares the last row of each partition with Kafka's record at that offset."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config

    async def starts(self, table: RawTable, progress: Mapping[int, int | None]) -> dict[int, int]:
        """Where to read on, by partition.

        Raises:
            ArterialError: REFUSED if the topic was recreated or has lost offsets without a declared gap; DEPENDENCY_UNAVAILABLE.
        """
        topic = table.topic
        known = {partition: end for partition, end in progress.items() if end is not None}
        last = await asyncio.to_thread(table.last_rows, topic.name, topic.incarnation, known)
        client = kafka.consumer(self._config)
        await client.start()
        try:
            begins = await client.beginning_offsets([TopicPartition(topic.name, partition) for partition in progress])
            ends = await client.end_offsets([TopicPartition(topic.name, partition) for partition in progress])
            starts, comparable = {}, {}
            for partition, stored in progress.items():
                tp = TopicPartition(topic.name, partition)
                first = begins[tp] if topic.adoption is not None else 0
                starts[partition] = self._start(table, partition, (begins[tp], ends[tp]), first if stored is None else stored)
                if partition in last and begins[tp] <= last[partition][0]:
                    comparable[partition] = last[partition]
            await self._compare(client, topic.name, comparable)
        finally:
            await client.stop()
        return starts

    @staticmethod
    def _start(table: RawTable, partition: int, bounds: tuple[int, int], stored: int) -> int:
        topic, (begin, end) = table.topic, bounds
        if end < stored:
            raise _recreated(topic.name, partition, f"Kafka ends at {end}, before the stored end {stored}")
        if begin <= stored:
            return stored
        for gap in topic.gaps:
            if (gap.incarnation, gap.partition) == (topic.incarnation, partition) and gap.start <= stored and gap.end >= begin:
                return begin
        raise ArterialError(
            Reason.REFUSED,
            f"{topic.name}/{partition}: Kafka begins at {begin}, after the stored end {stored}: offsets are lost; "
            f"declare a gap [{stored}, {begin}) with its reason in the topic",
        )

    async def _compare(self, client: AIOKafkaConsumer, topic: str, wanted: Mapping[int, tuple[int, int]]) -> None:
        if not wanted:
            return
        client.assign([TopicPartition(topic, partition) for partition in wanted])
        for partition, (offset, _) in wanted.items():
            client.seek(TopicPartition(topic, partition), offset)
        missing = dict(wanted)
        deadline = asyncio.get_running_loop().time() + READ_BACK_SECONDS
        while missing:
            if asyncio.get_running_loop().time() > deadline:
                raise ArterialError(
                    Reason.DEPENDENCY_UNAVAILABLE, f"{topic}: Kafka does not return the last known records of {sorted(missing)}"
                )
            for tp, records in (await client.getmany(timeout_ms=500)).items():
                row = missing.pop(tp.partition, None)
                if row is not None and (records[0].offset, crc(records[0].value)) != row:
                    raise _recreated(topic, tp.partition, f"the record at offset {row[0]} differs from the stored row")
                client.pause(tp)


def _recreated(topic: str, partition: int, what: str) -> ArterialError:
    return ArterialError(
        Reason.REFUSED, f"{topic}/{partition}: {what}; the topic was recreated: raise its incarnation by a declared change"
    )
