"""Role `work`: trains the model when the control plane says so, and fills the velocities with what history the lake has of them."""

import asyncio
from datetime import UTC, date, datetime, timedelta

from chassis import kv, lakesql, olap
from chassis.config import LakeConfig
from chassis.desired import Desired, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.lake import Table
from chassis.learning import training
from chassis.learning.snapshot import Pinned
from chassis.lineage import emitting
from chassis.logs import logger
from chassis.process import Context
from services.radar.config import RadarConfig
from services.radar.features import FEATURES, Payment
from services.radar.lineage import train_job
from services.radar.point_in_time import PAYMENTS, recent_sql
from services.radar.policy import risk_policy
from services.radar.scoring import MODEL
from services.radar.velocities import Velocities

TRAINERS = {"radar-train": "services.radar.training:train"}
WARM_SECONDS = 10.0
_log = logger(__name__)


async def work(config: RadarConfig, context: Context) -> None:
    """Takes training runs until the process stops."""
    redis = kv.connect(config.kv)
    warming = asyncio.create_task(_keep_warm(Warming(config, Velocities(redis, FEATURES)), context))
    try:
        async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
            lineage.emit_from("radar.train", lambda: train_job(risk_policy(feed.current), _days(feed.current)))
            await training.work(config, context, TRAINERS)
    finally:
        warming.cancel()
        await redis.aclose()


def _days(desired: Desired) -> int:
    """Days of payments that training reads. Raises NOT_FOUND."""
    declared = desired.models.get(MODEL)
    for each in declared.model.inputs if declared is not None else ():
        if each.dataset == PAYMENTS:
            return each.days
    raise ArterialError(Reason.NOT_FOUND, f"no Model {MODEL} that reads {PAYMENTS} is declared")


class Warming:
    """Brings payment events of the lake into the velocities: all recent ones at the start, as an online store may have been lost, and
    afterwards those that come from files. Events of the stream are there already, and adding an event again changes nothing."""

    def __init__(self, config: RadarConfig, velocities: Velocities) -> None:
        self._config = config
        self._velocities = velocities
        self._taken: set[str] = set()
        self._version = -1

    async def step(self, now: datetime) -> int:
        """Takes the data files that it has not taken yet; returns how many events they had within the longest window before `now`."""
        first = (now - timedelta(microseconds=FEATURES.longest_us)).date()
        pinned = await asyncio.to_thread(_pinned, self._config.lake, first, now.date() + timedelta(days=1))
        if pinned is None or pinned.snapshot.table_version == self._version:
            return 0
        fresh = [added for added in pinned.files if added.path not in self._taken]
        sql = recent_sql(FEATURES, now, only_files=self._version >= 0)
        source = lakesql.source(self._config.lake, pinned.table, fresh, pinned.schema)
        client = await olap.connect(self._config.olap)
        try:
            result = await client.query(lakesql.resolved(sql, {PAYMENTS: source}))
        finally:
            await client.close()
        await self._velocities.observe([Payment(bytes.fromhex(row[0]), *row[1:]) for row in result.result_rows], None)
        self._version = pinned.snapshot.table_version
        self._taken = {added.path for added in pinned.files}
        return len(result.result_rows)


def _pinned(lake: LakeConfig, first: date, last: date) -> Pinned | None:
    if Table.open(lake, PAYMENTS.removeprefix("lake/")) is None:
        return None
    return Pinned.open(lake, PAYMENTS, first, last)


async def _keep_warm(warming: Warming, context: Context) -> None:
    """Warms until cancelled; what fails is tried again with the next step."""
    while True:
        try:
            count = await warming.step(datetime.fromtimestamp(context.clock.now(), UTC))
            if count:
                _log.info("velocities filled from the lake", events=count)
        except Exception as error:
            _log.warning("velocities could not be filled from the lake, trying again", error=repr(error))
        await context.clock.sleep(WARM_SECONDS)
