"""Desired state as a data-plane process has it: from disk at the start, from the control plane as it changes."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import (
    control_plane_service_pb2_grpc,
    resource_pb2,
    saved_state_pb2,
    schema_registry_service_pb2,
    schema_registry_service_pb2_grpc,
    specs_pb2,
)
from chassis import resourcefiles
from chassis.config import ServiceConfig
from chassis.errors import ArterialError, Reason
from chassis.lastgood import LastGood, write_atomically
from chassis.logs import logger
from chassis.process import Context
from chassis.reporting import Reporter, Reports, Standing, instance_of
from chassis.resources import Key
from chassis.rpc.client import channel
from chassis.topics import Topic, topic_from_spec
from chassis.understanding import Received, Refused, ordered
from chassis.wire import HEADER_BYTES, MAGIC, Schemas

# Reconnects wait between these, with jitter, so that a returning control plane is not stormed.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.2, 10.0
# The control plane says every 10 s that it lives: a connection that is silent for this is half open, or its server hangs.
PATIENCE_SECONDS = 25.0
# A control plane that did not answer who looked for schemas is asked by the next after this: each waits for seconds.
AWAY_SECONDS = 10.0
# Whoever frames garbage names schemas that there cannot be.
MAX_ID = 2**31 - 1
# Feeds that follow nothing report nothing.
NOBODY = Reporter("", "", "")
_log = logger(__name__)


@dataclass(frozen=True)
class Desired:
    """A snapshot of the resources of some kinds (all for none), and the version of the control plane that it is of (0 before the first
    contact). To ask it for another kind is a defect of the service, and a KeyError."""

    resources: tuple[resource_pb2.Resource, ...]
    version: int = 0
    kinds: frozenset[str] = frozenset()

    @cached_property
    def topics(self) -> Mapping[str, Topic]:
        """Declared topics by name."""
        return {resource.metadata.name: topic_from_spec(resource.metadata.name, resource.topic) for resource in self._of("Topic")}

    @cached_property
    def pipelines(self) -> Mapping[str, specs_pb2.PipelineSpec]:
        """Declared pipelines by name."""
        return {resource.metadata.name: resource.pipeline for resource in self._of("Pipeline")}

    @cached_property
    def pricing_policies(self) -> Mapping[str, specs_pb2.PricingPolicySpec]:
        """Declared pricing policies by name."""
        return {resource.metadata.name: resource.pricing_policy for resource in self._of("PricingPolicy")}

    @cached_property
    def eta_policies(self) -> Mapping[str, specs_pb2.EtaPolicySpec]:
        """Declared policies of live speeds by name."""
        return {resource.metadata.name: resource.eta_policy for resource in self._of("EtaPolicy")}

    @cached_property
    def risk_policies(self) -> Mapping[str, specs_pb2.RiskPolicySpec]:
        """Declared risk policies by name."""
        return {resource.metadata.name: resource.risk_policy for resource in self._of("RiskPolicy")}

    @cached_property
    def quality_policies(self) -> Mapping[str, specs_pb2.QualityPolicySpec]:
        """Declared quality policies by name."""
        return {resource.metadata.name: resource.quality_policy for resource in self._of("QualityPolicy")}

    @cached_property
    def datasets(self) -> Mapping[str, resource_pb2.Resource]:
        """Declared datasets by logical name, whole: owner and specification."""
        return {resource.metadata.name: resource for resource in self._of("Dataset")}

    @cached_property
    def models(self) -> Mapping[str, resource_pb2.Resource]:
        """Declared models by name, whole: specification, and which versions serve in `status.model`."""
        return {resource.metadata.name: resource for resource in self._of("Model")}

    @cached_property
    def fare_tables(self) -> Mapping[str, specs_pb2.FareTableSpec]:
        """Declared fare tables by name."""
        return {resource.metadata.name: resource.fare_table for resource in self._of("FareTable")}

    @cached_property
    def features(self) -> Mapping[str, specs_pb2.FeatureSpec]:
        """Declared features by name."""
        return {resource.metadata.name: resource.feature for resource in self._of("Feature")}

    @cached_property
    def curated_tables(self) -> Mapping[str, specs_pb2.CuratedTableSpec]:
        """Declared curated tables by name."""
        return {resource.metadata.name: resource.curated_table for resource in self._of("CuratedTable")}

    @cached_property
    def quality_rules(self) -> Mapping[str, specs_pb2.QualityRuleSpec]:
        """Declared quality rules by name."""
        return {resource.metadata.name: resource.quality_rule for resource in self._of("QualityRule")}

    @cached_property
    def schemas(self) -> Mapping[str, resource_pb2.Resource]:
        """Declared schemas by name, whole: text, and what the registry made of it; those that it does not have yet are missing."""
        return {resource.metadata.name: resource for resource in self._of("Schema") if resource.status.schema.schema_id}

    @cached_property
    def generations(self) -> Mapping[tuple[str, str], int]:
        """Generation by kind and name."""
        return {(resource.kind, resource.metadata.name): resource.metadata.generation for resource in self.resources}

    def pipeline(self, role: specs_pb2.PipelineRole.ValueType, topic: str) -> specs_pb2.PipelineSpec | None:
        """The pipeline of that role that reads the topic, if any."""
        return next((spec for spec in self.pipelines.values() if spec.role == role and topic in spec.topics), None)

    def has(self, kind: str) -> bool:
        """True if resources of the kind are watched."""
        return not self.kinds or kind in self.kinds

    def _of(self, kind: str) -> list[resource_pb2.Resource]:
        if not self.has(kind):
            raise KeyError(f"{kind} is not among the kinds that this service watches")
        return [resource for resource in self.resources if resource.kind == kind]


class DesiredFeed:
    """The current desired state and its changes. A resource that was not understood never replaces the last good version of it."""

    def __init__(
        self,
        current: Desired,
        folder: Path,
        address: str | None,
        *,
        reporter: Reporter = NOBODY,
        refused: Mapping[Key, Refused] | None = None,
    ) -> None:
        self.current = current
        # Version up to which the log of changes was followed; that of `current` is the last that changed anything here.
        self.position = current.version
        self.schemas = Schemas()
        self.reports = Reports(reporter)
        self._reporter = reporter
        self._folder = folder
        self._disk = LastGood(folder)
        self._address = address
        self._refused = dict(refused or {})
        for key, found in self._refused.items():
            self.reports.say(*key, found.resource.metadata.generation, found.why)
        self._changed = asyncio.Event()
        self._hurried = asyncio.Event()
        self._ask_at = 0.0
        for file in sorted((folder / "schemas").glob("*.pb")):
            self._add_schema(file.read_bytes())
        self._declare_schemas(current)

    async def changed(self) -> Desired:
        """Waits for the next change and returns the new state."""
        changed = self._changed
        await changed.wait()
        return self.current

    def say(self, desired: Desired, kind: str, name: str, standing: Standing | None) -> None:
        """Tells the control plane what became of a resource, of the generation that `desired` has; on the loop, as often as one likes.

        What is no longer desired so is not told: who acted on it has yet to look at what is. Nor is what became of the last good version
        of a resource that was not understood: that it was not is what counts.
        """
        generation = desired.generations.get((kind, name), 0)
        if generation == self.current.generations.get((kind, name), 0) and (kind, name) not in self._refused:
            self.reports.say(kind, name, generation, standing)

    def replace(self, desired: Desired) -> None:
        """Makes a good state current, on disk first."""
        self._save(desired)
        self._use(desired)

    def _save(self, desired: Desired) -> None:
        refused = [refused.resource for refused in self._refused.values()]
        kinds = sorted(desired.kinds)
        self._disk.save(
            saved_state_pb2.SavedState(resource_version=desired.version, resources=desired.resources, refused=refused, kinds=kinds)
        )

    def _use(self, desired: Desired) -> None:
        self.current = desired
        self._declare_schemas(desired)
        self.reports.keep_only(lambda key: key in desired.generations or key in self._refused)
        self._changed.set()
        self._changed = asyncio.Event()

    async def find_schema(self, schema_id: int) -> bool:
        """True if the schema is known, asking the control plane if it must; found ones are kept on disk."""
        await self._ask([schema_id])
        return self.schemas.get(schema_id) is not None

    async def find_schemas(self, topic: Topic, values: Iterable[bytes | None]) -> None:
        """Looks for the schemas that framed values of a topic were written with. A control plane that does not answer holds nothing up: it
        is asked again later, by whoever comes then."""
        if topic.adoption is not None and not topic.adoption.framed:
            return
        heads = {value[:HEADER_BYTES] for value in values if value}
        ids = [int.from_bytes(head[1:], "big") for head in heads if len(head) == HEADER_BYTES and head[0] == MAGIC]
        now = asyncio.get_running_loop().time()
        if now >= self._ask_at and not await self._ask(sorted(ids)):
            self._ask_at = now + AWAY_SECONDS

    async def _ask(self, ids: Iterable[int]) -> bool:
        """Asks for schemas that are not known; False if the control plane does not answer."""
        unknown = [schema_id for schema_id in ids if 0 < schema_id <= MAX_ID and self.schemas.get(schema_id) is None]
        if self._address is None or not unknown:
            return True
        async with channel(self._address) as connection:
            stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(connection)
            for schema_id in unknown:
                try:
                    reply = await stub.GetSchema(schema_registry_service_pb2.GetSchemaRequest(schema_id=schema_id))
                except ArterialError as error:
                    _log.info("schema not found", schema_id=schema_id, error=str(error))
                    if error.reason is not Reason.NOT_FOUND:
                        return False
                else:
                    self._keep_schema(schema_id, reply.registered.SerializeToString())
        return True

    def _keep_schema(self, schema_id: int, encoded: bytes) -> None:
        try:
            self._add_schema(encoded)
        except Exception:
            _log.exception("schema cannot be read", schema_id=schema_id)
        else:
            write_atomically(self._folder / "schemas" / f"{schema_id}.pb", encoded)

    def _declare_schemas(self, desired: Desired) -> None:
        """Schemas travel with the resources that declare them, so that a topic and its schema are known at the same moment."""
        for name, resource in desired.schemas.items() if desired.has("Schema") else ():
            told = resource.status.schema
            try:
                self._learn(told.schema_id, resource.schema.type, told.file_descriptor_set, told.message or resource.schema.definition)
                self.schemas.declare(name, told.schema_id)
                standing = Standing(True, "Known", f"version {told.version}, id {told.schema_id}")
            except Exception as error:
                # Parsers raise whatever they like; one schema that cannot be read must not keep the rest of a state out.
                _log.exception("schema cannot be read", schema=name, schema_id=told.schema_id)
                standing = Standing(False, "Unreadable", f"{type(error).__name__}: {error}")
            self.say(desired, "Schema", name, standing)

    def _add_schema(self, encoded: bytes) -> None:
        registered = schema_registry_service_pb2.RegisteredSchema.FromString(encoded)
        schema = registered.schema
        self._learn(registered.schema_id, schema.type, schema.file_descriptor_set, schema.message or schema.text)

    def _learn(self, schema_id: int, kind: specs_pb2.SchemaType.ValueType, files: bytes, text: str) -> None:
        """Makes a schema known: of Protobuf by its files and the name of its message, of another language by its text."""
        if files:
            self.schemas.add(schema_id, files, text)
        elif kind in (specs_pb2.SCHEMA_TYPE_AVRO, specs_pb2.SCHEMA_TYPE_JSON):
            from chassis import languages  # most processes meet Protobuf only

            known = languages.AvroSchema if kind == specs_pb2.SCHEMA_TYPE_AVRO else languages.JsonSchema
            schema = known(schema_id, text)
            if self.schemas.get(schema_id) != schema:
                _ = schema.arrow  # before it is given: what columns cannot hold is an error now
                self.schemas.give(schema)

    async def watch(self, context: Context) -> None:
        """Follows the control plane until the process stops; connection lost, it goes on with what it has."""
        backoff = MIN_BACKOFF_SECONDS
        while self._address is not None and not context.stopping.is_set():
            try:
                async for received, version in self._complete_states(self._address):
                    backoff = MIN_BACKOFF_SECONDS
                    await self._take(received, version)
                    # Only now: what is not in force yet must be sent again after a failure.
                    self.position = version
            except ArterialError as error:
                _log.info("control plane away, going on with the last good state", reason=str(error.reason), version=self.position)
            except TimeoutError:
                _log.warning("control plane silent, connecting anew", seconds=PATIENCE_SECONDS, version=self.position)
            except Exception:
                # Whatever is wrong with what was sent, the process goes on with what it has, and asks again.
                _log.exception("desired state could not be taken", version=self.position)
            await self._pause(context, backoff * random.uniform(0.5, 1.5))
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    def hurry(self) -> None:
        """Has a lost connection tried again soon: somebody asks for what may have been declared meanwhile."""
        self._hurried.set()

    async def _pause(self, context: Context, seconds: float) -> None:
        """Until the time is over or the process stops; somebody in a hurry waits for the least of times."""
        with suppress(TimeoutError):
            await asyncio.wait_for(context.stopping.wait(), MIN_BACKOFF_SECONDS)
        waits = [asyncio.ensure_future(event.wait()) for event in (context.stopping, self._hurried)]
        await asyncio.wait(waits, timeout=max(0.0, seconds - MIN_BACKOFF_SECONDS), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._hurried.clear()

    async def _complete_states(self, address: str) -> AsyncIterator[tuple[Received, int]]:
        """The state, each time that it is complete, and its version."""
        refused = [refused.resource for refused in self._refused.values()]
        received = Received(self.current.resources, refused)
        request = control.WatchRequest(
            kinds=sorted(self.current.kinds),
            resource_version=self.position,
            cell=self._reporter.cell,
            component=self._reporter.component,
            batches=True,
        )
        async with channel(address, attempts=1) as connection:
            responses = aiter(control_plane_service_pb2_grpc.ControlPlaneServiceStub(connection).Watch(request))
            while True:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    message = await anext(responses, None)
                if message is None:
                    return
                self.reports.reached()
                self._ask_at = 0.0
                version = received.take(message)
                if version is not None:
                    yield received, version

    async def _take(self, received: Received, version: int) -> None:
        if not received.changed:
            return
        received.changed = False
        for key, refused in received.refused.items():
            if self._refused.get(key) != refused:
                _log.error("resource not understood, its last good version stays", resource="/".join(key), why=refused.why.message)
        for key in self._refused.keys() - received.refused.keys():
            self.reports.say(*key, received.in_force[key].metadata.generation if key in received.in_force else 0, None)
        for key, refused in received.refused.items():
            self.reports.say(*key, refused.resource.metadata.generation, refused.why)
        self._refused = dict(received.refused)
        desired = Desired(ordered(received.in_force), version, self.current.kinds)
        try:
            await asyncio.to_thread(self._save, desired)
        except OSError as error:
            _log.error("desired state could not be saved, going on with it in memory", error=str(error))
        self._use(desired)
        _log.info("desired state changed", version=desired.version, resources=len(desired.resources), refused=len(self._refused))

    async def close(self) -> None:
        """Saves where to go on."""
        if self.position != self.current.version:
            with suppress(OSError):
                await asyncio.to_thread(self._save, replace(self.current, version=self.position))


def load(config: ServiceConfig) -> Desired:
    """The last good state, else the seed resources; what is corrupt on disk is passed over and said so."""
    return _loaded(config)[0]


def _loaded(config: ServiceConfig) -> tuple[Desired, Mapping[Key, Refused]]:
    kinds = config.watches
    saved = LastGood(config.state_dir).load()
    if saved is not None:
        # One that watched other kinds has not seen all of these: it is shown everything again.
        version = saved.resource_version if frozenset(saved.kinds) == kinds else 0
        received = Received.judged(_of_kinds(saved.resources, kinds), _of_kinds(saved.refused, kinds))
        return Desired(ordered(received.in_force), version, kinds), received.refused
    seed = resourcefiles.read([config.resources_dir]) if config.resources_dir is not None else ()
    received = Received.judged(_of_kinds(seed, kinds))
    return Desired(ordered(received.in_force), 0, kinds), received.refused


def _of_kinds(found: Iterable[resource_pb2.Resource], kinds: frozenset[str]) -> list[resource_pb2.Resource]:
    return [resource for resource in found if not kinds or resource.kind in kinds]


@asynccontextmanager
async def acting(feed: DesiredFeed, act: Callable[[Desired], None]) -> AsyncIterator[None]:
    """Has `act` take in the desired state, now and at each change, as long as the context lasts. What it raises is logged."""

    async def follow() -> None:
        while True:
            acted = feed.current
            try:
                act(acted)
            except Exception:
                _log.exception("desired state could not be acted on", version=acted.version)
            if feed.current is acted:
                await feed.changed()

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@asynccontextmanager
async def follow_desired(config: ServiceConfig, context: Context) -> AsyncIterator[DesiredFeed]:
    """The feed of a process, watched in the background; what the process says of resources is sent beside it."""
    desired, refused = _loaded(config)
    reporter = Reporter(config.cell.name, context.process, instance_of(config.state_dir))
    feed = DesiredFeed(desired, config.state_dir, config.control_plane, reporter=reporter, refused=refused)
    tasks = [asyncio.create_task(feed.watch(context))]
    if config.control_plane is not None:
        tasks.append(asyncio.create_task(feed.reports.send(config.control_plane)))
    try:
        yield feed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await feed.close()
