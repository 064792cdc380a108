"""The loop that makes the runs of schedules, and place for the most important ones, in the one replica that is elected to."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from cronsim import CronSimError
from sqlalchemy.exc import SQLAlchemyError

from arterial.api.controlplane.v1 import resource_pb2
from chassis.logs import logger
from chassis.process import Context
from services.controlplane.jobs import schedules
from services.controlplane.jobs.election import Election
from services.controlplane.jobs.schedule_store import ScheduleStore
from services.controlplane.resources.store import ResourceStore

INTERVAL_SECONDS = 1.0
# A schedule is looked at once within this: the clock of this process may have been set meanwhile.
LONGEST_REST = timedelta(seconds=60)
_log = logger(__name__)


class Scheduler:
    """Looks at the declared schedules, and makes what is due."""

    def __init__(self, resources: ResourceStore, store: ScheduleStore, election: Election) -> None:
        self._resources = resources
        self._store = store
        self._election = election
        self._seen = -1
        self._declared: list[resource_pb2.Resource] = []
        # Until when a schedule of the clock need not be looked at, as long as nothing is changed.
        self._resting: dict[str, datetime] = {}
        # Last revision of its cell's partitions that a schedule of data was looked at with.
        self._looked: dict[str, int] = {}

    async def run(self, context: Context) -> None:
        """Until the process stops."""
        while not context.stopping.is_set():
            more = False
            try:
                more = self._election.leading and await self.step()
            except (OSError, SQLAlchemyError) as error:
                _log.warning("scheduler: store away", error=repr(error))
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(context.stopping.wait(), INTERVAL_SECONDS)

    async def step(self) -> bool:
        """Looks at every schedule once; True if there is more to make at once. One that fails does not hold up the others."""
        version = await self._resources.version()
        if version != self._seen:
            self._declared, self._resting, self._looked = await self._store.declared(), {}, {}
            await self._store.forget()
            self._seen = version
        await self._store.make_place()
        more, revisions = False, await self._store.revisions()
        for resource in self._declared:
            revision = revisions.get(resource.schedule.cell, 0)
            if not self._rests(resource, revision):
                try:
                    more |= await self._make(resource, revision)
                except (ValueError, LookupError, ArithmeticError, CronSimError) as error:
                    _log.error("schedule cannot be kept", schedule=resource.metadata.name, error=repr(error))
        return more

    def _rests(self, resource: resource_pb2.Resource, revision: int) -> bool:
        if resource.schedule.WhichOneof("trigger") == "data":
            return self._looked.get(resource.metadata.name) == revision
        return datetime.now(UTC) < self._resting.get(resource.metadata.name, datetime.min.replace(tzinfo=UTC))

    async def _make(self, resource: resource_pb2.Resource, revision: int) -> bool:
        made = await self._store.make(resource)
        if made.runs:
            _log.info("scheduled", schedule=resource.metadata.name, runs=[run.run_id for run in made.runs])
        if made.more or made.held:
            return made.more
        if resource.schedule.WhichOneof("trigger") == "data":
            self._looked[resource.metadata.name] = revision
        else:
            coming = await asyncio.to_thread(schedules.next_moment, resource.schedule, made.at)
            ahead = LONGEST_REST if coming is None else coming - made.at
            self._resting[resource.metadata.name] = datetime.now(UTC) + min(ahead, LONGEST_REST)
        return False
