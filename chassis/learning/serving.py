"""The live and the shadow version of a model in a process that serves: loaded, swapped and compared while answers go on.

What the desired state names is loaded in a thread and swapped in when it is whole; what cannot be loaded never replaces what answers. A
copy of the version that answers stays in the process's own folder, so that a restart without control plane and without the store of
artefacts still has it.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import resource_pb2
from arterial.api.controlplane.v1alpha1 import model_service_pb2, model_service_pb2_grpc
from chassis.config import LakeConfig, ServiceConfig
from chassis.desired import DesiredFeed
from chassis.errors import ArterialError, Reason
from chassis.lastgood import write_atomically
from chassis.learning.artefact import Artefact, Artefacts
from chassis.logs import logger
from chassis.reporting import Standing
from chassis.rpc.client import channel

M = TypeVar("M")
Floats = NDArray[np.float64]
# What could not be loaded is tried again: a store may come back.
RETRY_SECONDS = 15.0
# Batches that wait for the shadow: beyond this it is asked about fewer, so that a slow shadow never slows or fills the process.
MAX_WAITING = 256
REPORT_SECONDS, CALL_SECONDS = 1.0, 5.0
_log = logger(__name__)


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A version that can be asked."""

    version: str
    sha256: str
    model: M


@dataclass
class Comparison:
    """What was seen of a shadow version since the last report: answers by both, failures, and the sum of absolute differences."""

    version: str
    answers: int = 0
    failures: int = 0
    difference: float = 0.0

    def add(self, live: Floats, shadow: Floats | None, possible: tuple[float, float]) -> None:
        """Adds a batch; shape (n,). None stands for a shadow that could not answer."""
        good = np.zeros(len(live), bool)
        if shadow is not None:
            good = np.isfinite(shadow) & (shadow >= possible[0]) & (shadow <= possible[1])
            self.difference += float(np.abs(shadow - live)[good].sum())
        self.answers += int(good.sum())
        self.failures += int((~good).sum())

    def request(self, model: str) -> model_service_pb2.ReportShadowRequest:
        """The report."""
        return model_service_pb2.ReportShadowRequest(
            model=model,
            version=self.version,
            answers=self.answers,
            failures=self.failures,
            mean_difference=self.difference / self.answers if self.answers else 0.0,
        )


class ServedModel(Generic[M]):
    """The versions of one Model in this process. `live` and `shadow` may be read at any time, on the loop."""

    def __init__(self, name: str, root: LakeConfig, folder: Path, build: Callable[[Artefact], M], *, possible: tuple[float, float]) -> None:
        self.name = name
        self.live: Loaded[M] | None = None
        self.shadow: Loaded[M] | None = None
        self._artefacts = Artefacts(root)
        self._copies = Artefacts(LakeConfig(root=str(folder)))
        self._note = folder / name / "last_good.json"
        self._build = build
        self._possible = possible
        self._waiting: deque[tuple[Loaded[M], Floats, Callable[[M], Floats]]] = deque(maxlen=MAX_WAITING)
        self._compared: Comparison | None = None

    def compare(self, answers: Floats, ask: Callable[[M], Floats]) -> None:
        """Has the shadow, if there is one, answer what the live version has answered; shape (n,). Returns at once.

        `ask` runs in a thread, later: it must not hold on to anything that changes.
        """
        if self.shadow is not None and len(answers):
            self._waiting.append((self.shadow, answers, ask))

    async def apply(self, status: resource_pb2.ModelStatus | None) -> bool:
        """Loads what the status names; True if all of it is loaded. None: the Model is not declared, nothing is served.

        A status without a live version keeps the one that answers: a control plane that lost its memory takes no model away.
        """
        if status is None:
            self.live = self.shadow = None
            return True
        shadow = await self._loaded(status.shadow, self.shadow, "shadow") if status.shadow.version else None
        if not status.live.version:
            self.shadow = shadow
            return True
        live = await self._loaded(status.live, self.live, "live", keep=True)
        if live is not None:
            self.live = live
        self.shadow = shadow
        return live is not None and (shadow is not None or not status.shadow.version)

    async def restore(self) -> None:
        """Loads the copy of the version that answered last, if there is one."""
        try:
            note = json.loads(self._note.read_text())
            served = resource_pb2.ServedVersion(version=note["version"], path=note["path"], sha256=note["sha256"])
            self.live = await asyncio.to_thread(self._load, self._copies, served)
            _log.info("model restored", model=self.name, version=served.version)
        except FileNotFoundError:
            return
        except Exception as error:
            _log.error("the copy of the last good model is not usable", model=self.name, error=str(error))

    async def _loaded(
        self, served: resource_pb2.ServedVersion, current: Loaded[M] | None, place: str, *, keep: bool = False
    ) -> Loaded[M] | None:
        """The version, loaded if it is not `current`; None if it cannot be."""
        for known in (current, self.shadow, self.live):
            if known is not None and known.sha256 == served.sha256:
                if keep and known is not current:
                    await self._keep(served)
                return known
        try:
            loaded = await asyncio.to_thread(self._load, self._artefacts, served)
        except Exception as error:
            # Whatever is wrong with it, the process goes on with what it has.
            _log.error("model cannot be loaded", model=self.name, version=served.version, place=place, error=str(error))
            return None
        _log.info("model loaded", model=self.name, version=served.version, place=place)
        if keep:
            await self._keep(served)
        return loaded

    def _load(self, artefacts: Artefacts, served: resource_pb2.ServedVersion) -> Loaded[M]:
        artefact = artefacts.load(served.path, served.sha256)
        if artefact.model != self.name:
            raise ArterialError(Reason.REFUSED, f"{served.path} is of model {artefact.model}")
        return Loaded(artefact.version, artefact.sha256, self._build(artefact))

    async def _keep(self, served: resource_pb2.ServedVersion) -> None:
        try:
            await asyncio.to_thread(self._copy, served)
        except (ArterialError, OSError, ValueError) as error:
            _log.error("no copy of the model could be kept", model=self.name, version=served.version, error=str(error))

    def _copy(self, served: resource_pb2.ServedVersion) -> None:
        """The copy first, then the note that names it, then the older copy goes."""
        before = json.loads(self._note.read_text())["path"] if self._note.exists() else None
        try:
            self._copies.load(served.path, served.sha256)
        except ArterialError:
            # It is not there, or not what it was.
            self._copies.delete(served.path)
            self._copies.store(self._artefacts.load(served.path, served.sha256))
        note = {"version": served.version, "path": served.path, "sha256": served.sha256}
        write_atomically(self._note, json.dumps(note).encode())
        if before not in (None, served.path):
            self._copies.delete(before)

    async def follow(self, feed: DesiredFeed) -> None:
        """Follows the desired state until cancelled."""
        while True:
            desired = feed.current
            declared = desired.models.get(self.name)
            whole = await self.apply(declared.status.model if declared is not None else None)
            feed.say(desired, "Model", self.name, self._standing(whole))
            if feed.current is desired:
                with suppress(TimeoutError):
                    await asyncio.wait_for(feed.changed(), None if whole else RETRY_SECONDS)

    def _standing(self, whole: bool) -> Standing:
        if not whole:
            return Standing(False, "NotLoaded", f"what is to serve cannot be loaded; {self._answering()} answers")
        return Standing(True, "Loaded", f"{self._answering()} answers")

    def _answering(self) -> str:
        return f"version {self.live.version}" if self.live is not None else "no version"

    async def report(self, address: str) -> None:
        """Asks the shadow what waits, and reports what came of it, until cancelled."""
        async with channel(address) as connection:
            stub = model_service_pb2_grpc.ModelServiceStub(connection)
            while True:
                await asyncio.sleep(REPORT_SECONDS)
                await self._ask()
                if self._compared is not None:
                    await self._send(stub, self._compared)

    async def _ask(self) -> None:
        while self._waiting:
            shadow, answers, ask = self._waiting.popleft()
            if self._compared is None or self._compared.version != shadow.version:
                self._compared = Comparison(shadow.version)
            found: Floats | None = None
            try:
                found = await asyncio.to_thread(ask, shadow.model)
            except Exception as error:
                _log.warning("shadow could not answer", model=self.name, version=shadow.version, error=str(error))
            self._compared.add(answers, found, self._possible)

    async def _send(self, stub: Any, compared: Comparison) -> None:
        try:
            await stub.ReportShadow(compared.request(self.name), timeout=CALL_SECONDS)
        except ArterialError as error:
            if error.reason not in (Reason.REFUSED, Reason.NOT_FOUND):
                # It stays for the next report.
                _log.info("shadow could not be reported", model=self.name, reason=str(error.reason))
                return
        self._compared = None


@asynccontextmanager
async def serving(
    name: str,
    root: LakeConfig,
    build: Callable[[Artefact], M],
    *,
    config: ServiceConfig,
    feed: DesiredFeed,
    possible: tuple[float, float],
) -> AsyncIterator[ServedModel[M]]:
    """The versions of a Model, kept as the desired state wants them as long as the context lasts.

    Args:
        name: of the Model.
        root: of the artefacts.
        build: makes an artefact what can be asked; runs in a thread, and may raise whatever is wrong with it.
        config: of the process.
        feed: its desired state.
        possible: lowest and highest answer that the service holds possible; a shadow's beyond them are failures.
    """
    served = ServedModel(name, root, config.state_dir / "models", build, possible=possible)
    await served.restore()
    tasks = [asyncio.create_task(served.follow(feed))]
    if config.control_plane is not None:
        tasks.append(asyncio.create_task(served.report(config.control_plane)))
    try:
        yield served
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
