"""The demo's story: a day arrives wrong; quality finds it, lineage says who is hit, the gate stops what would learn from it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from arterial.api.controlplane.v1 import control_plane_service_pb2, control_plane_service_pb2_grpc
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import job_service_pb2_grpc, partition_service_pb2_grpc
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as partitions
from arterial.api.dqm.v1alpha1 import dqm_service_pb2 as dqm
from arterial.api.dqm.v1alpha1 import dqm_service_pb2_grpc
from arterial.api.dss.v1alpha1 import dss_service_pb2 as dss
from arterial.api.dss.v1alpha1 import dss_service_pb2_grpc
from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as lineage
from arterial.api.lineage.v1alpha1 import lineage_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from arterial.channel import Channel, connect
from cli.backfill import load
from cli.storyfiles import StoryFiles

CELL = "local"
MONITORED = ("lake/curated/trip_events_v2", "lake/curated/payment_events_v1", "lake/curated/trips")
# Kind of a training run and the Model that it is for.
TRAINED = (("eta-train", "eta"), ("radar-train", "radar"), ("pricing-train", "demand"))
# What begins the graph: everything downstream of these is counted.
SOURCES = ("kafka/trip_events_v2", "kafka/payment_events_v1", "kafka/marketplace_events_v1", "kafka/gps_pings_v1")
POLL_SECONDS = 0.5
# A laptop that does other things too may need minutes for a step.
TIMEOUT_SECONDS = 240.0
_PAGE = page_pb2.PageRequest(page_size=1000)


class StoryError(RuntimeError):
    """Something of the story did not happen in time."""


@dataclass
class Findings:
    """What came of it."""

    series: int = 0
    incidents: list[dqm.Incident] = field(default_factory=list)
    minutes_to_detect: float | None = None
    blocked: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    edges: set[tuple[str, str]] = field(default_factory=set)
    impacted: list[lineage.Node] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    live_models: Mapping[str, str] = field(default_factory=dict)


class Story:
    """Tells it against a running stack. Use it as a context manager; `say` shows a line."""

    def __init__(self, data_dir: Path, files: StoryFiles, addresses: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._data_dir = data_dir
        self._files = files
        self._addresses = addresses
        self._say = say
        self._open = AsyncExitStack()
        self.findings = Findings()

    async def __aenter__(self) -> "Story":
        channels: dict[str, Channel] = {}
        for name in ("controlplane", "dss", "dqm", "lineage"):
            channels[name] = await self._open.enter_async_context(connect(self._addresses[name]))
        self._jobs = job_service_pb2_grpc.JobServiceStub(channels["controlplane"])
        self._partitions = partition_service_pb2_grpc.PartitionServiceStub(channels["controlplane"])
        self._resources = control_plane_service_pb2_grpc.ControlPlaneServiceStub(channels["controlplane"])
        self._dss = dss_service_pb2_grpc.DssServiceStub(channels["dss"])
        self._dqm = dqm_service_pb2_grpc.DqmServiceStub(channels["dqm"])
        self._lineage = lineage_service_pb2_grpc.LineageServiceStub(channels["lineage"])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def history(self) -> str:
        """Four weeks go into the lake, are profiled and judged; returns the newest day of them."""
        await self.load(*self._files.history)
        self._say("four weeks of history are in the lake")
        day = (self._files.calendar.last - timedelta(days=1)).isoformat()
        await self.until(lambda: self.all_ready(day), "the history is profiled, judged and ready")
        return day

    async def learn(self, day: str) -> None:
        """Models learn from what is there up to a day, and go live."""
        runs = await self._train(day)
        await self.until(lambda: self._ended(runs), "models are trained from the history")
        await self.until(self._models_live, "models are live")

    async def last_day(self) -> None:
        """The last day arrives; whatever is wrong with it is found, told, held up, corrected and released."""
        fault, day = self._files.fault, self._files.calendar.last.isoformat()
        arrived = time.time()
        await self.load(*self._files.last_day)
        self._say(f"the day {day} has arrived" + (f", with a fault: {fault}" if fault else ""))
        runs = await self._train(day)
        if fault is not None:
            await self.until(self._incident, "an incident is open")
            self.findings.minutes_to_detect = (self.findings.incidents[0].opened_at.ToMilliseconds() / 1000 - arrived) / 60
            await self._tell()
            await self.until(lambda: self._blocked(runs, day), "the gate holds training up")
            assert self._files.correction is not None
            await self.load(self._files.correction)
            self._say("the correction, a source that supersedes the wrong one, is in the lake")
        await self.until(lambda: self.all_ready(day), f"the day {day} is ready")
        await self.until(lambda: self._ended(runs), "training went on")
        await self._look_back(runs)

    async def load(self, *files: Path) -> None:
        """Backfills files."""
        async for _loaded in load(self._data_dir, *files):
            pass

    async def _train(self, day: str) -> list[str]:
        """Asks for a training run of each model; returns their ids."""
        runs = []
        for kind, subject in TRAINED:
            request = jobs.CreateRunRequest(kind=kind, subject=subject, cell=CELL, partition_date=day)
            runs.append((await self._jobs.CreateRun(request, timeout=10)).run.run_id)
        return runs

    async def all_ready(self, day: str) -> bool:
        """True if the control plane has marked the day ready in every monitored table."""
        return all(state == partitions.PARTITION_STATE_READY for state in (await self._states(day)).values())

    async def _states(self, day: str) -> dict[str, "partitions.PartitionState.ValueType"]:
        found = {}
        for name in MONITORED:
            request = partitions.GetPartitionRequest(cell=CELL, dataset=name, partition_date=day)
            found[name] = (await self._partitions.GetPartition(request, timeout=5)).partition.state
        return found

    async def _runs(self, ids: list[str]) -> list[jobs.Run]:
        return [(await self._jobs.GetRun(jobs.GetRunRequest(run_id=run_id), timeout=5)).run for run_id in ids]

    async def _ended(self, ids: list[str]) -> bool:
        runs = await self._runs(ids)
        failed = [run for run in runs if run.state in (jobs.RUN_STATE_FAILED, jobs.RUN_STATE_CANCELLED)]
        if failed:
            raise StoryError(f"run of {failed[0].subject} failed: {'; '.join(failed[0].reasons)}")
        return all(run.state == jobs.RUN_STATE_SUCCEEDED for run in runs)

    async def _blocked(self, ids: list[str], day: str) -> bool:
        """True once a run waits for a partition that an incident blocks; one that only waits for its verdict is not held up yet."""
        blocked = [name for name, state in (await self._states(day)).items() if state == partitions.PARTITION_STATE_BLOCKED]
        for run in await self._runs(ids):
            reason = next((reason for reason in run.reasons if reason.startswith(tuple(f"{name} " for name in blocked))), "")
            if run.state == jobs.RUN_STATE_SUSPENDED and reason and run.run_id not in self.findings.blocked:
                self.findings.blocked.add(run.run_id)
                self._say(f"training of {run.subject} is suspended: {reason}")
        return bool(self.findings.blocked)

    async def _models_live(self) -> bool:
        live = {}
        for _, subject in TRAINED:
            request = control_plane_service_pb2.GetResourceRequest(kind="Model", name=subject)
            live[subject] = (await self._resources.GetResource(request, timeout=5)).resource.status.model.live.version
        self.findings.live_models = live
        return all(live.values())

    async def incidents(self) -> list[dqm.Incident]:
        """All incidents so far, newest first."""
        return list((await self._dqm.ListIncidents(dqm.ListIncidentsRequest(page=_PAGE), timeout=5)).incidents)

    async def _incident(self) -> bool:
        self.findings.incidents = await self.incidents()
        return bool(self.findings.incidents)

    async def _tell(self) -> None:
        """Shows the incident, and who is hit."""
        incident = self.findings.incidents[0]
        where = ", ".join(incident.columns) or "rows"
        self._say(
            f"incident: {incident.summary} ({incident.dataset}, {where}, market {incident.market or 'all'}, severity {incident.severity})"
        )
        request = lineage.GetImpactRequest(name=incident.dataset, columns=incident.columns)
        reply = await self._lineage.GetImpact(request, timeout=5)
        self.findings.impacted, self.findings.owners = list(reply.nodes), list(reply.owners)
        hit = ", ".join(f"{node.name} (tier {node.tier or '?'}, {node.owner or 'no owner'})" for node in reply.nodes[:6])
        self._say(f"blast radius: {len(reply.nodes)} nodes, owners {', '.join(reply.owners)}: {hit}")

    async def _look_back(self, runs: list[str]) -> None:
        self.findings.incidents = await self.incidents()
        succeeded = {run.run_id for run in await self._runs(runs) if run.state == jobs.RUN_STATE_SUCCEEDED}
        self.findings.released = self.findings.blocked & succeeded
        datasets = (await self._dss.ListDatasets(dss.ListDatasetsRequest(page=_PAGE), timeout=10)).datasets
        self.findings.series = sum(dataset.series for dataset in datasets)
        for name in SOURCES:
            reply = await self._lineage.GetDownstream(lineage.GetDownstreamRequest(name=name), timeout=5)
            self.findings.nodes |= {name, *(node.name for node in reply.nodes)}
            self.findings.edges |= {(edge.source, edge.target) for edge in reply.edges}
        await self._models_live()

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Waits until it holds, and says so.

        Raises:
            StoryError: it did not in time.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not await holds():
            if time.monotonic() > deadline:
                raise StoryError(f"not within {TIMEOUT_SECONDS:.0f} s: {what}")
            await asyncio.sleep(POLL_SECONDS)
        self._say(what)
