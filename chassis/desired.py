"""Desired state as a data-plane process has it: from disk at the start, from the control plane as it changes."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from google.protobuf.message import DecodeError

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import (
    control_plane_service_pb2_grpc,
    resource_pb2,
    schema_registry_service_pb2,
    schema_registry_service_pb2_grpc,
    specs_pb2,
)
from chassis import resourcefiles, resources
from chassis.config import ServiceConfig
from chassis.errors import ArterialError
from chassis.logs import logger
from chassis.process import Context
from chassis.rpc.client import channel
from chassis.rpc.validation import violations_of
from chassis.topics import Topic, topic_from_spec
from chassis.wire import Schemas

# Reconnects wait between these, with jitter, so that a returning control plane is not stormed.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.2, 10.0
_log = logger(__name__)


@dataclass(frozen=True)
class Desired:
    """A snapshot of all resources, and the version of the control plane that it is of (0 before the first contact)."""

    resources: tuple[resource_pb2.Resource, ...]
    version: int = 0

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
    def quality_rules(self) -> Mapping[str, specs_pb2.QualityRuleSpec]:
        """Declared quality rules by name."""
        return {resource.metadata.name: resource.quality_rule for resource in self._of("QualityRule")}

    @cached_property
    def schemas(self) -> Mapping[str, resource_pb2.SchemaStatus]:
        """Declared schemas by name, as the registry has them; those that it does not have yet are missing."""
        return {resource.metadata.name: resource.status.schema for resource in self._of("Schema") if resource.status.schema.schema_id}

    def pipeline(self, role: specs_pb2.PipelineRole.ValueType, topic: str) -> specs_pb2.PipelineSpec | None:
        """The pipeline of that role that reads the topic, if any."""
        return next((spec for spec in self.pipelines.values() if spec.role == role and topic in spec.topics), None)

    def _of(self, kind: str) -> list[resource_pb2.Resource]:
        return [resource for resource in self.resources if resource.kind == kind]


class DesiredFeed:
    """The current desired state and its changes. A state that was not understood whole never replaces a good one."""

    def __init__(self, current: Desired, folder: Path, address: str | None) -> None:
        self.current = current
        self.schemas = Schemas()
        self._folder = folder
        self._address = address
        self._changed = asyncio.Event()
        for file in sorted((folder / "schemas").glob("*.pb")):
            self._add_schema(file.read_bytes())
        self._declare_schemas(current)

    async def changed(self) -> Desired:
        """Waits for the next change and returns the new state."""
        changed = self._changed
        await changed.wait()
        return self.current

    def replace(self, desired: Desired) -> None:
        """Makes a good state current, on disk first."""
        file = control.ApplyResponse(resources=desired.resources)
        file.changes.add(kind="version", name=str(desired.version))
        write_atomically(self._folder / "last_good.pb", file.SerializeToString())
        self._declare_schemas(desired)
        self.current = desired
        self._changed.set()
        self._changed = asyncio.Event()

    async def find_schema(self, schema_id: int) -> bool:
        """True if the schema is known, asking the control plane if it must; found ones are kept on disk."""
        if self.schemas.get(schema_id) is not None:
            return True
        if self._address is None:
            return False
        try:
            async with channel(self._address) as connection:
                stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(connection)
                reply = await stub.GetSchema(schema_registry_service_pb2.GetSchemaRequest(schema_id=schema_id))
        except ArterialError as error:
            _log.info("schema not found", schema_id=schema_id, error=str(error))
            return False
        encoded = reply.registered.SerializeToString()
        write_atomically(self._folder / "schemas" / f"{schema_id}.pb", encoded)
        self._add_schema(encoded)
        return True

    def _declare_schemas(self, desired: Desired) -> None:
        """Schemas travel with the resources that declare them, so that a topic and its schema are known at the same moment."""
        for schema in desired.schemas.values():
            if schema.file_descriptor_set:
                self.schemas.add(schema.schema_id, schema.file_descriptor_set, schema.message)
                self.schemas.declare(schema.message, schema.schema_id)

    def _add_schema(self, encoded: bytes) -> None:
        registered = schema_registry_service_pb2.RegisteredSchema.FromString(encoded)
        self.schemas.add(registered.schema_id, registered.schema.file_descriptor_set, registered.schema.message)

    async def watch(self, context: Context) -> None:
        """Follows the control plane until the process stops; connection lost, it goes on with what it has."""
        backoff = MIN_BACKOFF_SECONDS
        while self._address is not None and not context.stopping.is_set():
            try:
                async for desired in self._states(self._address):
                    backoff = MIN_BACKOFF_SECONDS
                    if desired.resources != self.current.resources:
                        self.replace(desired)
                        _log.info("desired state changed", version=desired.version, resources=len(desired.resources))
            except ArterialError as error:
                _log.info("control plane away, going on with the last good state", reason=str(error.reason), version=self.current.version)
            except ValueError as error:
                _log.error("desired state refused, going on with the last good one", error=str(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), backoff * random.uniform(0.5, 1.5))
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    async def _states(self, address: str) -> AsyncIterator[Desired]:
        """States as the control plane reports them, each complete."""
        async with channel(address) as connection:
            stub = control_plane_service_pb2_grpc.ControlPlaneServiceStub(connection)
            held = {(resource.kind, resource.metadata.name): resource for resource in self.current.resources}
            async for event in stub.Watch(control.WatchRequest(resource_version=self.current.version)):
                key = (event.resource.kind, event.resource.metadata.name)
                if event.type == control.WatchResponse.TYPE_RESYNC:
                    held.clear()
                elif event.type == control.WatchResponse.TYPE_PUT:
                    held[key] = event.resource
                elif event.type == control.WatchResponse.TYPE_DELETED:
                    held.pop(key, None)
                else:
                    yield _understood(Desired(tuple(held[name] for name in sorted(held)), event.resource_version))


def _understood(desired: Desired) -> Desired:
    """The state itself, if every resource keeps the contract and is of a known kind.

    Raises:
        ValueError: it does not.
    """
    for resource in desired.resources:
        broken = violations_of(resource)
        if broken or resource.kind not in resources.FIELD_OF_KIND:
            raise ValueError(f"{resource.kind}/{resource.metadata.name} is not understood: {[v.field for v in broken] or 'unknown kind'}")
    _ = desired.topics, desired.pipelines, desired.pricing_policies
    return desired


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file: whoever reads it finds the old content or the new, whole, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def load(config: ServiceConfig) -> Desired:
    """The last good state, else the seed resources; what is corrupt on disk is passed over and said so."""
    file = config.state_dir / "last_good.pb"
    if file.exists():
        try:
            saved = control.ApplyResponse.FromString(file.read_bytes())
            return _understood(Desired(tuple(saved.resources), int(saved.changes[0].name)))
        except (DecodeError, ValueError, IndexError) as error:
            _log.error("last good state is corrupt, beginning with the seed", file=str(file), error=str(error))
    if config.resources_dir is None:
        return Desired(())
    seeds = sorted(resourcefiles.read([config.resources_dir]), key=lambda resource: (resource.kind, resource.metadata.name))
    return _understood(Desired(tuple(seeds)))


@asynccontextmanager
async def follow_desired(config: ServiceConfig, context: Context) -> AsyncIterator[DesiredFeed]:
    """The feed of a process, watched in the background."""
    feed = DesiredFeed(load(config), config.state_dir, config.control_plane)
    watching = asyncio.create_task(feed.watch(context))
    try:
        yield feed
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
