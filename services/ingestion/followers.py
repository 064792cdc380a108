"""How far the followers of a raw table are."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chassis import olap
from chassis.lake import Table
from chassis.topics import Topic
from services.ingestion.config import IngestionConfig
from services.ingestion.live import live_version
from services.ingestion.raw import table_name


@dataclass(frozen=True)
class Versions:
    """Last raw version in the curated and in the live table; -1 for none."""

    curated: int
    live: int


async def follower_versions(config: IngestionConfig, topics: Sequence[Topic]) -> Mapping[str, Versions]:
    """Versions by topic, as the followers' own tables have them."""
    client = await olap.connect(config.olap)
    try:
        live = [await live_version(client, config.olap.database, topic.name) for topic in topics]
    finally:
        await client.close()
    curated = await asyncio.gather(*(asyncio.to_thread(_curated, config, topic) for topic in topics))
    return {topic.name: Versions(*versions) for topic, *versions in zip(topics, curated, live, strict=True)}


def _curated(config: IngestionConfig, topic: Topic) -> int:
    table = Table.open(config.lake, f"curated/{topic.name}")
    done = table.progress(table_name(topic.name)) if table is not None else None
    return -1 if done is None else done
