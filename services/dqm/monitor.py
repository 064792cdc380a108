"""Role `monitor`: polls the statistics and judges what is complete and changed, a date at a time, so that one cause is one incident."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from arterial.api.controlplane.v1 import specs_pb2
from chassis import lineage, sql
from chassis.clock import Clock
from chassis.desired import Desired, follow_desired
from chassis.errors import ArterialError
from chassis.lineage import JobDefinition, Output
from chassis.logs import logger
from chassis.process import Context
from chassis.rpc.client import channel
from services.dqm.causes import absent, missing_partition
from services.dqm.clustering import Relations, cluster
from services.dqm.config import DqmConfig
from services.dqm.deviations import Thresholds
from services.dqm.frame import Frame
from services.dqm.incidents import Incident, reconcile
from services.dqm.judging import Rules, Seen, complete, dates_due, look, partition
from services.dqm.reporting import report
from services.dqm.rules import rules_by_dataset
from services.dqm.sources import LineageSource, Profiled, Statistics
from services.dqm.store import MIGRATIONS, QualityStore
from services.dqm.verdicts import Partition
from services.dqm.waiting import Quiet, versions_until

SERIES, INCIDENTS = "olap/dss/series", "sql/dqm/incidents"
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_log = logger(__name__)


def rules_of(
    policy: specs_pb2.QualityPolicySpec, history_days: int, declared: Mapping[str, specs_pb2.QualityRuleSpec] | None = None
) -> Rules:
    """What a declared policy, and the quality rules by name, mean."""
    thresholds = Thresholds(policy.deviations, policy.min_change_percent, policy.min_history, policy.season)
    return Rules(thresholds, policy.judged_days, policy.settle_seconds, history_days, rules_by_dataset(declared or {}))


@dataclass(frozen=True)
class _Due:
    """A date to judge, the first date of its history, and the datasets whose partition is missing."""

    date: str
    first: str
    missing: Sequence[str]
    rules: Rules


class Monitor:
    """Judges partitions. One of them runs in a cell."""

    def __init__(
        self,
        *,
        config: DqmConfig,
        store: QualityStore,
        statistics: Statistics,
        relations: LineageSource | None,
        desired: Callable[[], Desired],
        clock: Clock,
    ) -> None:
        self._config = config
        self._store = store
        self._statistics = statistics
        self._relations = relations
        self._desired = desired
        self._clock = clock
        self._profiled: dict[str, Profiled] = {}
        self._partitions: dict[str, dict[str, int]] = {}
        self._frames: dict[str, tuple[Profiled, str, Frame | None]] = {}
        self._quiet = Quiet(config.quiet_seconds, config.patience_seconds)
        self._certain = Quiet(config.confirm_seconds, config.patience_seconds)
        self._doubted: dict[str, str] = {}
        self._late = Quiet(config.late_seconds, np.inf)
        self._not_judged: dict[tuple[str, str], int] = {}
        self._judged: dict[str, str] | None = None
        self._judged_at: dict[str, float] = {}
        self._incidents: list[Incident] = []

    async def step(self) -> None:
        """Judges all that is ripe. Raises the errors of the statistics and of PostgreSQL; a later step goes on where this one ended."""
        policy = self._desired().quality_policies.get(self._config.policy)
        if policy is None:
            return
        if self._judged is None:
            self._incidents, self._judged = await self._store.open_incidents(), dict(await self._store.judged())
        await self._refresh()
        rules, now = rules_of(policy, self._config.history_days, self._desired().quality_rules), self._clock.now()
        due = dates_due(self._partitions, now, rules)
        due += sorted({incident.finding.date for incident in self._incidents} - set(due))
        for date in sorted(due):
            await self._judge_if_ripe(date, rules)
        await self._put_not_judged(due, rules)

    async def _refresh(self) -> None:
        """Asks which partitions there are, of datasets that have news."""
        ruled = {rule.dataset for rule in self._desired().quality_rules.values()}
        monitored = {name for name, resource in self._desired().datasets.items() if resource.dataset.monitored or name in ruled}
        told = {profiled.dataset: profiled for profiled in await self._statistics.datasets() if profiled.dataset in monitored}
        for name, profiled in told.items():
            if self._profiled.get(name) != profiled:
                partitions = await self._statistics.partitions(name)
                self._partitions[name] = {date: version for date, version in partitions.items() if _ISO_DATE.fullmatch(date)}
                self._profiled[name] = profiled
        for gone in set(self._profiled) - set(told):
            del self._profiled[gone], self._partitions[gone]

    async def _judge_if_ripe(self, date: str, rules: Rules) -> None:
        now, first = self._clock.now(), str(np.datetime64(date) - rules.history_days)
        stands_on = {name: versions_until(partitions, date, first) for name, partitions in sorted(self._partitions.items())}
        missing = [name for name in stands_on if self._missing(name, date, rules, now)]
        fingerprint = self._fingerprint(date, stands_on, missing, rules)
        assert self._judged is not None
        hit = any(incident.finding.date == date for incident in self._incidents)
        again = hit and now - self._judged_at.get(date, now) >= self._config.refresh_seconds
        self._judged_at.setdefault(date, now)
        if self._judged.get(date) == fingerprint and not again:
            self._settled(date)
            return
        state = json.dumps(stands_on)
        ripe, certain = self._quiet.ripe(date, state, now), self._certain.ripe(date, state, now)
        if again or (ripe and (certain or self._doubted.get(date) != state)):
            if await self._judge(_Due(date, first, missing, rules), fingerprint, certain=again or certain):
                self._judged[date], self._judged_at[date] = fingerprint, now
                self._settled(date)
            else:
                self._doubted[date] = state

    def _settled(self, date: str) -> None:
        self._quiet.done(date)
        self._certain.done(date)
        self._doubted.pop(date, None)

    def _missing(self, name: str, date: str, rules: Rules, now: float) -> bool:
        """True if a partition is due, has been for a while, and is not there. While its history still comes, nothing is late."""
        partitions = self._partitions[name]
        if not absent(partitions, date, rules.thresholds.season):
            self._late.done((name, date))
            return False
        return self._late.ripe((name, date), tuple(at for at in partitions if at < date), now)

    def _fingerprint(self, date: str, stands_on: Mapping[str, object], missing: Sequence[str], rules: Rules) -> str:
        """Of everything that a judgement follows from: if it is the same, so is the judgement."""
        excluded = [(incident.incident_id, incident.finding.market) for incident in self._incidents if incident.finding.date < date]
        entities = {name: self._entity(name) for name in stands_on}
        document = [repr(rules), stands_on, missing, excluded, entities]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def _entity(self, dataset: str) -> str:
        return self._desired().datasets[dataset].dataset.entity_column

    async def _judge(self, due: _Due, fingerprint: str, *, certain: bool) -> bool:
        """Judges a date in all datasets, and writes what was found; unless it is bad news that is not certain yet: then False."""
        date = due.date
        earlier = [incident for incident in self._incidents if incident.finding.date != date]
        seen: dict[str, Seen] = {name: Seen((missing_partition(name, date),), 4, 0, 0) for name in due.missing}
        versions = dict.fromkeys(due.missing, -1)
        for name in sorted(self._partitions):
            told = await self._frame(name, due.first) if date in self._partitions[name] else None
            if told is not None and 0 <= told.day(np.datetime64(date)) < len(told.dates):
                versions[name] = self._partitions[name][date]
                seen[name] = await asyncio.to_thread(look, told, date, self._entity(name), earlier, due.rules)
        findings = [finding for of_dataset in seen.values() for finding in of_dataset.findings]
        relations = await self._relations.relations(findings) if self._relations is not None and findings else Relations()
        own = [incident for incident in self._incidents if incident.finding.date == date]
        reconciled = reconcile(own, cluster(findings, relations), [name for name, of_dataset in seen.items() if not of_dataset.unknown])
        if reconciled.opened and not certain:
            return False

        def verdicts(open_ones: Sequence[Incident]) -> list[Partition]:
            return [partition(name, date, versions[name], of_dataset, open_ones) for name, of_dataset in seen.items()]

        await self._store.save_date(date, fingerprint, reconciled, verdicts, datetime.fromtimestamp(self._clock.now(), UTC))
        self._incidents = await self._store.open_incidents()
        for finding in reconciled.opened:
            _log.warning("incident opened", dataset=finding.dataset, date=date, kind=finding.kind.name, market=finding.market)
        for incident in reconciled.resolved:
            _log.info("incident resolved", incident_id=incident.incident_id, summary=incident.summary)
        return True

    async def _frame(self, name: str, first: str) -> Frame | None:
        """The series of a dataset from a date on, asked for once as long as nothing changed."""
        profiled = self._profiled[name]
        held = self._frames.get(name)
        if held is None or held[0] != profiled or held[1] > first:
            held = self._frames[name] = (profiled, first, await self._statistics.frame(name, first))
        return held[2]

    async def _put_not_judged(self, due: Sequence[str], rules: Rules) -> None:
        """Says of partitions older than what is judged that they are."""
        now = self._clock.now()
        older = [
            partition(name, date, version, None, self._incidents)
            for name, partitions in self._partitions.items()
            for date, version in partitions.items()
            if date not in due and self._not_judged.get((name, date)) != version and complete(date, now, rules.settle_seconds)
        ]
        if older:
            await self._store.put_not_judged(older, datetime.fromtimestamp(now, UTC))
            self._not_judged |= {(told.dataset, told.date): told.table_version for told in older}


async def monitor(config: DqmConfig, context: Context) -> None:
    """Role `monitor`: judges, and reports verdicts to the control plane."""
    engine = sql.engine(config.sql)
    try:
        await sql.migrate(engine, MIGRATIONS)
        store = QualityStore(engine)
        async with AsyncExitStack() as stack:
            feed = await stack.enter_async_context(follow_desired(config, context))
            emitter = await stack.enter_async_context(lineage.emitting(config, context))
            emitter.emit(JobDefinition("dqm.monitor", [SERIES], [Output(INCIDENTS)]))
            statistics = Statistics(await stack.enter_async_context(channel(config.dss)))
            relations = LineageSource(await stack.enter_async_context(channel(config.lineage))) if config.lineage else None
            watcher = Monitor(
                config=config, store=store, statistics=statistics, relations=relations, desired=lambda: feed.current, clock=context.clock
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(report(store, config, context))
                tasks.create_task(_run(watcher, config, context))
    finally:
        await engine.dispose()


async def _run(watcher: Monitor, config: DqmConfig, context: Context) -> None:
    while not context.stopping.is_set():
        try:
            await watcher.step()
        except ArterialError as error:
            _log.info("statistics away, trying again", error=str(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(context.stopping.wait(), config.poll_seconds)
