"""`arterial demo`: a city on real engines, a killed worker, and an audit of every id."""

import argparse
import asyncio
import json
import shutil
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from arterial.api.ingestion.v1 import ingestion_service_pb2_grpc
from arterial.api.pricing.v1.pricing_service_pb2 import Surge
from arterial.api.types.v1 import page_pb2
from arterial.channel import connect
from arterial.client import Client
from arterial.errors import ArterialError
from chassis.tripfiles import TripFile
from cli import audit, report, storyfiles
from cli.answers import radar_answers
from cli.backfill import load
from cli.faults import send_malformed
from cli.replay import command
from cli.report import Observed
from cli.screen import Screen, View
from cli.story import Story, StoryError
from cli.storyfiles import StoryFiles
from deploy.local.child import Child, StartError
from deploy.local.memory import pss_mb
from deploy.local.supervisor import Stack, refuse_running
from simulator.producer import Ledger

CITY_ID = 1
POLL_SECONDS = 0.25
# Followers may need this long after the last event before the demo calls it a fault.
CATCH_UP_SECONDS = 90.0
VICTIM = "ingestion-stream"
# A day counts as over so long after its end; the seed's QualityPolicy says the same.
SETTLE_SECONDS = 3600
# Topics of streams, which go on after the events have stopped.
FLOWING = ("pricing_", "eta_", "radar_")
# Parts of the report that the story fills.
STORY = ("eta", "radar", "dss", "dqm", "gate", "lineage")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    demo = commands.add_parser("demo", help="start everything, play a city, kill a worker, audit")
    demo.add_argument("--trips", type=Path, help="a trip file: backfilled whole, and replayed as live demand")
    demo.add_argument("--minutes", type=float, default=1.5, help="minutes of live events (default 1.5)")
    demo.add_argument(
        "--fault", choices=("auto", "none"), default="auto", help="what is wrong with the last day: picked by the seed, or nothing"
    )
    demo.add_argument("--seed", type=int, default=7, help="of the history and of the fault (default 7)")
    demo.add_argument("--report", type=Path, help="write the report (JSON) here")
    demo.set_defaults(run=run)


async def run(arguments: argparse.Namespace) -> int:
    """Exit status 1 if anything is not as it should be."""
    plot = Plot(arguments.trips, int(arguments.minutes * 60), arguments.seed, arguments.fault == "auto")
    demo = Demo(arguments.data_dir / "demo", plot)
    document = await demo.run()
    if arguments.report:
        arguments.report.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.output == "json":
        print(json.dumps(document))
    return 0 if document["ok"] else 1


@dataclass(frozen=True)
class Plot:
    """What is played: a real trip file if there is one, how long, and what is wrong with the last day."""

    trips: Path | None
    live_seconds: int
    seed: int
    faulty: bool


class Demo:
    """One run over a fresh data folder."""

    def __init__(self, data_dir: Path, plot: Plot) -> None:
        refuse_running(data_dir)
        shutil.rmtree(data_dir, ignore_errors=True)
        self._data_dir = data_dir
        self._plot = plot
        self._trips = plot.trips
        self._live_seconds = plot.live_seconds
        self._file = TripFile(plot.trips) if plot.trips else None
        self._began = time.monotonic()
        self._observed = Observed(file=(self._file.source, self._file.rows) if self._file else None)
        self._view = View()
        self._stack = Stack(data_dir, say=lambda line: print(line, flush=True))
        self._producer: Child | None = None

    async def run(self) -> dict[str, object]:
        """Plays it all; returns the report."""
        writing = asyncio.create_task(asyncio.to_thread(self._write_files))
        await self._stack.start()
        try:
            failing = asyncio.ensure_future(self._stack.failure())
            files = await writing
            self._observed.fault = files.fault
            async with Story(self._data_dir.resolve(), files, self._stack.places.addresses(), self._note) as story:
                self._observed.findings = story.findings
                with Screen() as screen:
                    await self._learn(screen, story)
                    await self._live(screen, story)
            await self._answered()
            end_us = int(time.time() * 1e6)
            print("waiting until every table has everything", flush=True)
            await self._caught_up()
            print("auditing, id by id", flush=True)
            reply = await self._audit(end_us)
            failing.cancel()
        finally:
            self._observed.memory = self._stack.peaks
            if self._producer is not None:
                await self._producer.stop()
            await self._stack.stop()
        self._observed.seconds = time.monotonic() - self._began
        document = report.build(reply, self._observed)
        print("\n".join([*audit.verdict(reply), *_summary(document)]), flush=True)
        return document

    def _write_files(self) -> StoryFiles:
        plot = self._plot
        return storyfiles.write(self._data_dir / "files", time.time(), seed=plot.seed, faulty=plot.faulty, settle_seconds=SETTLE_SECONDS)

    async def _learn(self, screen: Screen, story: Story) -> None:
        """History first: models learn from it before the city wakes up."""
        self._note("four weeks of history are loaded, and models learn from them")

        async def learn() -> None:
            await story.learn(await story.history())

        await self._told(screen, learn())

    async def _told(self, screen: Screen | None, part: Coroutine[object, object, None]) -> None:
        """Plays a part of the story; what breaks off is shown, and is a problem of the report, but the show goes on."""
        telling = asyncio.create_task(part)
        while not telling.done():
            if screen is not None:
                self._view.seconds = time.monotonic() - self._began
                screen.update(self._view)
            await asyncio.wait([telling], timeout=1.0)
        try:
            await telling
        except (ArterialError, StoryError, StartError) as error:
            self._observed.story_error = f"the story broke off: {error}"
            self._note(self._observed.story_error)

    async def _day(self, story: Story) -> None:
        """The last day arrives while the city lives, unless the story broke off before."""
        if not self._observed.story_error:
            await self._told(None, story.last_day())

    async def _answered(self) -> None:
        """What radar decided, against who really was a fraudster."""
        self._observed.radar = await radar_answers(self._stack.places.addresses()["kafka"], self._data_dir / "ledger")
        for scenario, (caught, fraud) in self._observed.radar.caught.items():
            print(f"{scenario}: {caught} of {fraud} fraudulent payments were held up, {fraud - caught} missed", flush=True)

    async def _live(self, screen: Screen, story: Story) -> None:
        addresses = self._stack.places.addresses()
        words = command(addresses["ingestion"], self._data_dir / "ledger", self._live_seconds, trips=self._trips, burst=True, fraud=True)
        self._producer = Child.start("simulator", words, self._data_dir / "logs" / "simulator.log")
        self._note("the city is alive; a concert lets out near the arena in a moment")
        loading = asyncio.create_task(self._backfill())
        telling = asyncio.create_task(self._day(story))
        watching = asyncio.gather(self._watch(), self._observed.eta.ask(addresses["eta"], CITY_ID))
        plan = {self._live_seconds // 3: self._malformed(), self._live_seconds // 2: self._kill()}
        try:
            began = time.monotonic()
            while self._producer.alive or not telling.done():
                for after in [after for after in plan if time.monotonic() - began >= after]:
                    await plan.pop(after)
                await self._look()
                screen.update(self._view)
                await asyncio.sleep(1.0)
            await loading
            await telling
            await self._look()
            screen.update(self._view)
        finally:
            for coroutine in plan.values():
                coroutine.close()
            telling.cancel()
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _backfill(self) -> None:
        if self._trips is None:
            return
        async for loaded in load(self._data_dir.resolve(), self._trips):
            self._view.backfilled = (loaded.done, loaded.rows)
        self._note("the whole file is in the lake")

    async def _malformed(self) -> None:
        self._observed.malformed = await send_malformed(self._stack.places.addresses()["kafka"])
        self._note(f"{self._observed.malformed} malformed records sent straight to Kafka")

    async def _kill(self) -> None:
        pid = self._stack.kill(VICTIM)
        self._observed.kills.append({"process": VICTIM, "pid": pid, "after_seconds": round(time.monotonic() - self._began, 1)})
        self._view.kills += 1
        self._note(f"{VICTIM} (process {pid}) killed with SIGKILL while events flow")

    async def _watch(self) -> None:
        """Asks for surge several times a second: each new computation is one measurement of freshness."""
        seen = 0
        async with Client(pricing=self._stack.places.addresses()["pricing"]) as client:
            while True:
                with suppress(ArterialError):
                    self._see(await client.list_city_surge(CITY_ID))
                    computed = self._view.surges[0].standing.computed_at.ToMicroseconds() if self._view.surges else 0
                    if computed != seen and self._view.surges and self._view.surges[0].HasField("oldest_input_time"):
                        seen = computed
                        self._view.freshness_ms = (computed - self._view.surges[0].oldest_input_time.ToMicroseconds()) / 1000
                        self._observed.freshness_ms.append(self._view.freshness_ms)
                await asyncio.sleep(POLL_SECONDS)

    def _see(self, surges: list[Surge]) -> None:
        self._view.surges = surges
        self._observed.cells = max(self._observed.cells, len(surges))
        highest = max((surge.multiplier_milli for surge in surges), default=1000) / 1000
        if highest > 1.0 and self._observed.first_surge_seconds is None:
            self._observed.first_surge_seconds = round(time.monotonic() - self._began, 1)
            self._note(f"first surge after {self._observed.first_surge_seconds} s")
        self._observed.max_multiplier = max(self._observed.max_multiplier, highest)

    async def _look(self) -> None:
        assert self._producer is not None
        view, lines = self._view, self._producer.log.read_text().splitlines()
        view.seconds = time.monotonic() - self._began
        numbers = [line for line in lines[-1:] if line.startswith("{")]
        if numbers:
            progress = json.loads(numbers[0])
            view.rate, view.published = progress["records"] - view.published, progress["records"]
            self._observed.resent = progress["resent"]
        view.eta = self._observed.eta.last
        peaks = self._stack.peaks.each_mb
        peaks["simulator"] = max(peaks.get("simulator", 0.0), await asyncio.to_thread(pss_mb, self._producer.pid))
        with suppress(ArterialError):
            view.lag = sum(lag.lag_offsets for lag in await self._lags() if not lag.topic.startswith(FLOWING))

    def _note(self, text: str) -> None:
        self._view.notes.append(text)

    async def _lags(self) -> list[pb.Lag]:
        async with connect(self._stack.places.addresses()["ingestion"]) as channel:
            request = pb.ListLagRequest(page=page_pb2.PageRequest(page_size=1000))
            return list((await ingestion_service_pb2_grpc.IngestionServiceStub(channel).ListLag(request, timeout=5)).lags)

    async def _caught_up(self) -> None:
        """Waits until raw has what Kafka has now, and the followers have that raw. Heartbeats go on, so a moving end is followed once."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        ends = {(lag.topic, lag.partition): lag.kafka_end_offset for lag in await self._lags()}
        async with connect(self._stack.places.addresses()["ingestion"]) as channel:
            stub = ingestion_service_pb2_grpc.IngestionServiceStub(channel)
            wanted: dict[str, int] = {}
            while time.monotonic() < deadline:
                with suppress(ArterialError):
                    pipelines = (await stub.GetPipelineStatus(pb.GetPipelineStatusRequest(), timeout=10)).pipelines
                    # The last offset of a transactional topic is a control record, which has no row.
                    behind = [row for row in pipelines if row.raw_end_offset + 1 < ends.get((row.source, row.partition), 0)]
                    if not behind and not wanted:
                        wanted = {row.source: row.raw_version for row in pipelines}
                    followed = all(
                        version < 0 or version >= wanted.get(row.source, 0)
                        for row in pipelines
                        for version in (row.curated_version, row.live_version)
                    )
                    if wanted and followed:
                        return
                await asyncio.sleep(0.5)

    async def _audit(self, end_us: int) -> pb.AuditResponse:
        """Events have stopped, so their topics are audited whole; the streams go on, so theirs are up to the end of the show."""
        names = sorted({lag.topic for lag in await self._lags()})
        flowing = [name for name in names if name.startswith(FLOWING)]
        async with connect(self._stack.places.addresses()["ingestion"]) as channel:
            ledger = Ledger(self._data_dir / "ledger").read()
            reply = await audit.ask(channel, ledger, topics=[name for name in names if name not in flowing])
            others = await audit.ask(channel, {}, topics=flowing, end_us=end_us)
        reply.topics.extend(others.topics)
        reply.exact &= others.exact
        return reply


def _summary(document: dict[str, object]) -> list[str]:
    lines = [f"{key}: {json.dumps(document[key])}" for key in ("events", "backfill", "surge", "fault", *STORY, "kills", "seconds")]
    lines.append(f"memory: {document['peak_pss_mb_together']} MB at most, all processes of the stack together")
    problems: list[str] = document["problems"]  # type: ignore[assignment]
    return lines + (["everything is as it should be"] if document["ok"] else [f"NOT OK: {problem}" for problem in problems])
