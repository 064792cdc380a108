"""What a process that decides stands on: the stores, and the served model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chassis import kv, sql
from chassis.desired import DesiredFeed
from chassis.learning.serving import serving
from services.radar.config import RadarConfig
from services.radar.features import FEATURES
from services.radar.scoring import MODEL, POSSIBLE, ModelScorer, build
from services.radar.store import DecisionStore
from services.radar.velocities import Velocities

MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def stores(config: RadarConfig) -> AsyncIterator[tuple[Velocities, DecisionStore]]:
    """The online store and the decision store, migrated; closed at the end."""
    redis, engine = kv.connect(config.kv), sql.engine(config.sql)
    try:
        await sql.migrate(engine, MIGRATIONS)
        yield Velocities(redis, FEATURES), DecisionStore(engine)
    finally:
        await engine.dispose()
        await redis.aclose()


@asynccontextmanager
async def scoring(config: RadarConfig, feed: DesiredFeed) -> AsyncIterator[ModelScorer]:
    """The served model, followed while the context lasts."""
    async with serving(MODEL, config.models, build, config=config, feed=feed, possible=POSSIBLE) as served:
        yield ModelScorer(served)
