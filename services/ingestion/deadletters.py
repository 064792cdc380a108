"""The dead-letter topic is filled from the dead rows of raw, at least once; a letter is identified by its coordinates."""

import asyncio
import json
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from chassis import kafka
from chassis.config import LakeConfig
from chassis.lake import Added, Table
from chassis.topics import Topic
from chassis.wire import BUILTIN_IDS, frame
from services.ingestion.handler import dead_letter
from services.ingestion.raw import table_name

MESSAGE = "arterial.api.ingestion.v1.DeadLetter"
DEAD_LETTERS = Topic("dead_letters_v1", MESSAGE, "source", partitions=1, retention_seconds=30 * 86400, curated=False, live=False)
# A letter holds its record whole, which may itself be as large as a record can be.
MAX_LETTER_BYTES = kafka.MAX_BATCH_BYTES - 10_000
KEPT_BYTES = 100_000
# Versions without dead rows after which the progress is noted all the same, so that a restart reads few commits.
NOTE_EVERY = 100


def progress_file(folder: Path, topic: str) -> Path:
    """Where the progress of a topic's letters is noted."""
    return folder / f"dead_letters.{topic}.json"


class DeadLetters:
    """Follows one raw table. Its progress is a file: were it lost, letters would be sent again, which readers must bear anyway."""

    def __init__(self, lake: LakeConfig, topic: Topic, folder: Path) -> None:
        self._lake = lake
        self._topic = topic
        self._file = progress_file(folder, topic.name)
        self._raw: Table | None = None
        self._version: int = json.loads(self._file.read_text())["version"] if self._file.exists() else -1
        self._noted = self._version

    async def step(self, producer: AIOKafkaProducer) -> bool:
        """Sends the letters that raw has in addition; False, as there is never more at once."""
        self._raw = self._raw or await asyncio.to_thread(Table.open, self._lake, table_name(self._topic.name))
        if self._raw is None:
            return False
        await asyncio.to_thread(self._raw.refresh)
        commits = await asyncio.to_thread(self._raw.commits_after, self._version)
        dead = [added for commit in commits if commit.data_change for added in commit.added if not added.good]
        for added in dead:
            records = await asyncio.to_thread(self._letters, self._raw, added)
            await kafka.send_all(producer, TopicPartition(DEAD_LETTERS.name, 0), records)
        if commits:
            self._version = commits[-1].version
        if dead or self._version >= self._noted + NOTE_EVERY:
            await asyncio.to_thread(self._note)
        return False

    def _note(self) -> None:
        draft = self._file.with_suffix(".draft")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"version": self._version}))
        draft.replace(self._file)
        self._noted = self._version

    @staticmethod
    def _letters(raw: Table, added: Added) -> list[tuple[bytes | None, bytes]]:
        columns = ["_topic", "_incarnation", "_partition", "_offset", "_kafka_time", "_key", "_value", "_headers", "_error"]
        rows = raw.read_file(added, columns).to_pylist()
        return [(row["_topic"].encode(), frame(BUILTIN_IDS[MESSAGE], fitting(dead_letter(row)).SerializeToString())) for row in rows]


def fitting(letter: pb.DeadLetter) -> pb.DeadLetter:
    """The letter, cut if it would not fit a record: one huge record must not hold up all letters after it."""
    size = letter.ByteSize()
    if size > MAX_LETTER_BYTES:
        letter.message += f" (cut from {size} bytes; the dead row in raw has it whole)"
        letter.key, letter.value = letter.key[:KEPT_BYTES], letter.value[:KEPT_BYTES]
        del letter.headers[:]
    return letter
