"""All declared curated tables follow their sources, one after the other, beside the followers of raw tables."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

from chassis.desired import DesiredFeed
from chassis.lineage import Lineage
from chassis.logs import logger
from chassis.olap import Olap
from chassis.process import Context
from chassis.reporting import Standing, instance_of
from chassis.resources import Key
from services.ingestion.config import IngestionConfig
from services.ingestion.derivation import Absent, Derivation, DerivationError
from services.ingestion.derived import Derived, job_name
from services.ingestion.due import Work
from services.ingestion.failures import Failures

POLL_SECONDS = 1.0
# A table rests after each step: a date that changes all the time is read and written anew as a whole, so at most a fifth of a core goes to
# one table, and small ones do not fill the lake with files that are replaced at once. History is made with as much time for others.
REST_FACTOR, HISTORY_REST_FACTOR, MIN_REST_SECONDS = 4.0, 1.0, 5.0
KIND = "CuratedTable"
_log = logger(__name__)


@dataclass
class Following:
    """A table, when it is stepped next, seconds since 1970, and what became of the last step."""

    table: Derived
    rests_until: float = 0.0
    standing: Standing | None = None


@dataclass
class Deriving:
    """One loop over all declared tables."""

    config: IngestionConfig
    context: Context
    feed: DesiredFeed
    olap: Olap
    lineage: Lineage | None = None
    _following: dict[str, Following] = field(default_factory=dict)
    _failures: dict[str, Failures] = field(default_factory=lambda: defaultdict(Failures))

    async def run(self) -> None:
        """Polls until the process is stopped."""
        try:
            while not self.context.stopping.is_set():
                await self.poll()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.context.stopping.wait(), POLL_SECONDS)
        finally:
            await self.olap.close()

    def follows(self, key: Key) -> bool:
        """True as long as it may be at work on a declared table."""
        kind, name = key
        return kind == KIND and name in self._following

    async def poll(self) -> None:
        """Takes every table that is due a step further; what fails is told, and tried ever more rarely."""
        desired = self.feed.current
        for name in [name for name in (*self._following, *self._failures) if name not in desired.curated_tables]:
            gone = self._following.pop(name, None)
            self._failures.pop(name, None)
            if gone is not None and self.lineage is not None:
                self.lineage.end(job_name(name))
        for name, spec in sorted(desired.curated_tables.items()):
            derivation = Derivation.of(name, spec)
            following = self._following.get(name)
            if following is None or following.table.derivation != derivation:
                if following is not None:
                    self._failures.pop(name, None)
                following = self._following[name] = Following(self._derived(derivation))
            due_at = max(following.rests_until, self._failures[name].retry_at)
            if not self.context.stopping.is_set() and self.context.clock.now() >= due_at:
                following.standing = await self._step(following)
            if following.standing is not None:
                # Also where there was no step: a change of its labels, say, waits for none.
                self.feed.say(desired, KIND, name, following.standing)

    async def _step(self, following: Following) -> Standing:
        name, began = following.table.derivation.name, self.context.clock.now()
        try:
            work = await following.table.step()
        except Absent as error:
            self._failures.pop(name, None)
            return Standing(None, error.reason, str(error))
        except Exception as error:
            retry_seconds = self._failures[name].note(self.context.clock.now(), error)
            following.table = self._derived(following.table.derivation)
            if isinstance(error, DerivationError):
                # The owner's business, who is told by the resource's status.
                _log.warning("declared table cannot be made", table=name, reason=error.reason, why=str(error), retry_seconds=retry_seconds)
                return Standing(False, error.reason, str(error))
            _log.exception("declared table failed, beginning again at its progress", table=name, retry_seconds=retry_seconds)
            return Standing(False, "StepFailed", self._failures[name].why)
        self._failures.pop(name, None)
        now = self.context.clock.now()
        if work is not None:
            _log.info("derived", table=name, dates=len(work.dates), left=work.left, seconds=round(now - began, 3))
            following.rests_until = now + _rest_seconds(work, now - began)
        return _standing(work)

    def _derived(self, derivation: Derivation) -> Derived:
        stage = f"derived_{instance_of(self.config.state_dir)}"
        return Derived(derivation, self.config.lake, self.olap, cell=self.config.cell, stage=stage, lineage=self.lineage)


def _rest_seconds(work: Work, took_seconds: float) -> float:
    return HISTORY_REST_FACTOR * took_seconds if work.left else max(MIN_REST_SECONDS, REST_FACTOR * took_seconds)


def _standing(work: Work | None) -> Standing:
    """What is on its way is not ready, and no fault either: it stops no rollout before its time."""
    if work is not None and work.left:
        return Standing(None, "MakingHistory", f"{work.left} dates of its sources are left")
    return Standing(True, "Running")
