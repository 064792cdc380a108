"""Tells the control plane whether raw, curated, declared and live tables keep what their datasets promise: a loop of the role `follow`.

What is judged comes from the tables' logs, the OLAP engine's note of progress and Kafka's offsets; no rows are read. An engine that is away
holds nothing up: of tables whose progress is not known the last one known counts, and completeness is not told without Kafka.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta

from clickhouse_connect.driver.exceptions import ClickHouseError

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import partition_service_pb2_grpc
from chassis import kafka
from chassis.desired import Desired, DesiredFeed
from chassis.errors import ArterialError
from chassis.logs import logger
from chassis.olap import Olap
from chassis.process import Context
from chassis.rpc.client import channel
from chassis.tiers import sla_of
from chassis.topics import Topic
from services.ingestion.config import IngestionConfig
from services.ingestion.derivation import LAKE
from services.ingestion.holdings import DAY_SECONDS, day_of
from services.ingestion.live import live_versions
from services.ingestion.positions import Follows, Positions, follows_of, raw_tables
from services.ingestion.promises import JUDGED_DAYS, Finding, Known, Promise, judge
from services.ingestion.raw import table_name
from services.ingestion.rawlog import RawLog

# A promise is looked at this often; what was found is told when it is another, and in any case once a minute: objectives count minutes.
LOOK_SECONDS, REPEAT_SECONDS = 10.0, 45.0
CALL_SECONDS = 10.0
# An engine that does not answer within this counts as away: what is known of the others is told meanwhile.
ENGINE_SECONDS = 20.0
# Verdicts of one call, as the contract has it.
MAX_VERDICTS = 10_000
_EPOCH = date(1970, 1, 1)
_log = logger(__name__)
LIVE = "olap/live/"


@dataclass(frozen=True)
class Instance:
    """A declared dataset that ingestion makes: its promise, the version of its table, and of which topics it has which version of raw."""

    name: str
    promise: Promise
    version: int
    sources: tuple[tuple[str, int], ...]


async def keep_promises(config: IngestionConfig, context: Context, feed: DesiredFeed) -> None:
    """Looks and tells until the process stops; does nothing without a control plane."""
    if config.control_plane is None:
        return
    keeper = Keeper(config, context, feed)
    async with channel(config.control_plane, attempts=1) as connection:
        stub = partition_service_pb2_grpc.PartitionServiceStub(connection)
        while not context.stopping.is_set():
            try:
                requests = await keeper.due()
                for request in requests:
                    await stub.ReportVerdicts(request, timeout=CALL_SECONDS)
                keeper.told(requests)
            except ArterialError as error:
                _log.info("what tables keep of their promises could not be told, it is told again", reason=str(error.reason))
            except Exception:
                _log.exception("what tables keep of their promises is not known")
            with suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), LOOK_SECONDS)
    await keeper.close()


class Keeper:
    """What is known of all tables, and what was told of them."""

    def __init__(self, config: IngestionConfig, context: Context, feed: DesiredFeed) -> None:
        self._config = config
        self._clock = context.clock
        self._feed = feed
        self._olap = Olap(config.olap)
        self._logs: dict[tuple[str, int, int], RawLog] = {}
        self._positions = Positions(config.lake)
        # Raw versions in the live tables; None until the OLAP engine answered.
        self._live: Mapping[str, int] | None = None
        # What the control plane was told last of each promise, and when everything was told.
        self._known: dict[tuple[str, str, int], pb.Verdict.ValueType] = {}
        self._telling_all, self._told_all_at = False, 0.0

    async def due(self) -> list[pb.ReportVerdictsRequest]:
        """What is to be told now."""
        found = await self._verdicts()
        self._telling_all = self._clock.now() - self._told_all_at >= REPEAT_SECONDS
        if not self._telling_all:
            found = [verdict for verdict in found if self._known.get(_key(verdict)) != verdict.verdict]
        cell, starts = self._config.cell.name, range(0, len(found), MAX_VERDICTS)
        return [pb.ReportVerdictsRequest(cell=cell, verdicts=found[start : start + MAX_VERDICTS]) for start in starts]

    def told(self, requests: Sequence[pb.ReportVerdictsRequest]) -> None:
        """Notes that the control plane has taken what was due."""
        told = {_key(verdict): verdict.verdict for request in requests for verdict in request.verdicts}
        self._known = told if self._telling_all else self._known | told
        if self._telling_all:
            self._told_all_at = self._clock.now()

    async def close(self) -> None:
        """Ends the connection to the OLAP engine."""
        await self._olap.close()

    async def _verdicts(self) -> list[pb.PartitionVerdict]:
        desired, now = self._feed.current, self._clock.now()
        with suppress(ArterialError, ClickHouseError, TimeoutError):
            async with asyncio.timeout(ENGINE_SECONDS):
                self._live = await live_versions(self._olap)
        instances, logs = await asyncio.to_thread(self._look, desired)
        in_kafka = await self._in_kafka([desired.topics[name] for name in logs], logs, now)
        found: list[pb.PartitionVerdict] = []
        for instance in instances:
            known = _known(instance, logs, in_kafka)
            found += [_verdict(instance, finding) for finding in judge(known, instance.promise, now)]
        return found

    def _look(self, desired: Desired) -> tuple[list[Instance], Mapping[str, RawLog]]:
        """The datasets that are made here, and the logs of the raw tables that they are made from; reads on in all of them."""
        follows, read = follows_of(desired), _read(desired)
        self._forget(follows, read)
        made = _made(desired, follows, read)
        instances = [found for name, takers in made.items() if (found := self._follower(desired, follows, name, takers)) is not None]
        logs: dict[str, RawLog] = {}
        for topic in read:
            taken = [version for instance in instances for source, version in instance.sources if source == topic.name]
            log = self._read_on(topic, taken)
            if log is not None:
                logs[topic.name] = log
                name = f"lake/{table_name(topic.name)}"
                if name in desired.datasets:
                    instances.append(Instance(name, _promise(desired, name), log.version, ((topic.name, log.version),)))
        return [instance for instance in instances if all(source in logs for source, _ in instance.sources)], logs

    def _read_on(self, topic: Topic, taken: Sequence[int]) -> RawLog | None:
        """The log of a raw table up to now; None if it cannot be read: what was told of it last stands, other tables are told of still."""
        key = (topic.name, topic.incarnation, topic.partitions)
        log = self._logs.setdefault(key, RawLog(self._config.cell, self._config.lake, topic))
        try:
            log.refresh(taken)
            return log
        except Exception:
            _log.exception("log of a raw table cannot be read", topic=topic.name)
            del self._logs[key]
            return None

    def _follower(self, desired: Desired, follows: Follows, name: str, takers: Sequence[Topic]) -> Instance | None:
        """A dataset that follows raw tables; None if it is not known how far it is, as of live tables before OLAP answered."""
        try:
            position = self._position(follows, name)
        except Exception:
            _log.exception("log of a table cannot be read", dataset=name)
            return None
        if position is None:
            return None
        version, progress = position
        taken = tuple((topic.name, progress.get(table_name(topic.name), -1)) for topic in takers)
        return Instance(name, _promise(desired, name), version, taken)

    def _forget(self, follows: Follows, read: Sequence[Topic]) -> None:
        """Forgets tables that are not made any more: should they be again, they may be others, of the same name."""
        topics = {(topic.name, topic.incarnation, topic.partitions) for topic in read}
        self._logs = {key: log for key, log in self._logs.items() if key in topics}
        self._positions.keep_only(follows)

    def _position(self, follows: Follows, dataset: str) -> tuple[int, Mapping[str, int]] | None:
        """Version of a follower's table, and of the raw tables that it has taken."""
        if not dataset.startswith(LIVE):
            return self._positions.of(follows, dataset.removeprefix(LAKE))
        source = table_name(dataset.removeprefix(LIVE))
        version = (self._live or {}).get(source, -1)
        return None if self._live is None else (version, {source: version})

    async def _in_kafka(self, topics: Sequence[Topic], logs: Mapping[str, RawLog], now: float) -> Mapping[str, Mapping[int, int]] | None:
        """Offsets that raw lacks, by topic and day; those of earlier days count for the first. None if Kafka does not answer."""
        today = day_of(now)
        days = range(today - JUDGED_DAYS, today)
        progress = {partition: logs[topic.name].ends[partition.partition] for topic in topics for partition in kafka.partitions(topic)}
        try:
            async with asyncio.timeout(ENGINE_SECONDS):
                waiting = await kafka.backlog(self._config.kafka, progress, [(day + 1) * DAY_SECONDS * 1000 for day in days])
        except (kafka.KafkaError, TimeoutError) as error:
            _log.info("Kafka does not answer, completeness is not told", error=repr(error))
            return None
        found: dict[str, dict[int, int]] = {topic.name: dict.fromkeys(days, 0) for topic in topics}
        for partition, counts in waiting.items():
            for day, before, after in zip(days, [0, *counts], counts, strict=False):
                found[partition.topic][day] += after - before
        return found


def _read(desired: Desired) -> list[Topic]:
    """Topics that a pipeline takes to raw."""
    return [topic for topic in desired.topics.values() if desired.pipeline(specs_pb2.PIPELINE_ROLE_RAW, topic.name)]


def _made(desired: Desired, follows: Follows, read: Sequence[Topic]) -> Mapping[str, list[Topic]]:
    """Declared datasets that follow raw tables, near or far, and the topics whose."""
    found: dict[str, list[Topic]] = {}
    for name in follows:
        raw = raw_tables(follows, name)
        found[f"{LAKE}{name}"] = [topic for topic in read if table_name(topic.name) in raw]
    for topic in read:
        if topic.live and desired.pipeline(specs_pb2.PIPELINE_ROLE_LIVE, topic.name):
            found[f"{LIVE}{topic.name}"] = [topic]
    return {name: topics for name, topics in found.items() if topics and name in desired.datasets}


def _promise(desired: Desired, name: str) -> Promise:
    sla = sla_of(desired.datasets[name])
    return Promise(sla.freshness_seconds, sla.completeness_percent)


def _known(instance: Instance, logs: Mapping[str, RawLog], in_kafka: Mapping[str, Mapping[int, int]] | None) -> Known:
    held = [(block, version) for source, version in instance.sources for block in logs[source].blocks]
    there = [block for block, version in held if block.version <= version]
    waiting = [block for block, version in held if block.version > version]
    if in_kafka is None:
        return Known(there, waiting)
    unread: Counter[int] = Counter()
    for source, _ in instance.sources:
        unread.update(in_kafka[source])
    return Known(there, waiting, unread)


def _verdict(instance: Instance, finding: Finding) -> pb.PartitionVerdict:
    return pb.PartitionVerdict(
        dataset=instance.name,
        partition_date=(_EPOCH + timedelta(days=finding.day)).isoformat(),
        verdict=pb.VERDICT_PASS if finding.kept else pb.VERDICT_FAIL,
        table_version=instance.version,
        reasons=[finding.reason],
        aspect=pb.Aspect.Value(f"ASPECT_{finding.aspect.value}"),
        value=finding.value,
    )


def _key(verdict: pb.PartitionVerdict) -> tuple[str, str, int]:
    return verdict.dataset, verdict.partition_date, verdict.aspect
