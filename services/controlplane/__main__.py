"""Starts the control plane."""

import asyncio
from pathlib import Path

import grpc
from sqlalchemy.ext.asyncio import AsyncEngine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc, schema_registry_service_pb2, schema_registry_service_pb2_grpc
from arterial.api.controlplane.v1alpha1 import (
    backup_service_pb2,
    backup_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    partition_service_pb2,
    partition_service_pb2_grpc,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
    slo_service_pb2,
    slo_service_pb2_grpc,
)
from chassis import process, resourcefiles, sql
from chassis.errors import ArterialError, Reason
from chassis.lineage import emitting
from chassis.process import Context
from chassis.rpc.server import Register
from chassis.rpc.server import serve as serve_rpc
from services.controlplane import reconciling
from services.controlplane.backup.backup_handler import BackupHandler
from services.controlplane.backup.backup_store import BackupStore
from services.controlplane.config import ControlPlaneConfig
from services.controlplane.jobs.election import Election
from services.controlplane.jobs.job_handler import JobHandler
from services.controlplane.jobs.run_store import RunStore
from services.controlplane.jobs.schedule_store import ScheduleStore
from services.controlplane.jobs.scheduling import Scheduler
from services.controlplane.models.model_handler import ModelHandler
from services.controlplane.models.model_store import ModelStore
from services.controlplane.partitions.partition_handler import PartitionHandler
from services.controlplane.partitions.partition_store import PartitionStore
from services.controlplane.partitions.partition_watching import PartitionWatching
from services.controlplane.registry import rest
from services.controlplane.registry.catalogue import Catalogue
from services.controlplane.registry.configuration import Configuration
from services.controlplane.registry.handler import SchemaRegistryHandler
from services.controlplane.registry.registry import SchemaRegistry
from services.controlplane.resources import telling
from services.controlplane.resources.applying import Applying
from services.controlplane.resources.declared_schemas import DeclaredSchemas
from services.controlplane.resources.dependents import Dependents
from services.controlplane.resources.handler import ControlPlaneHandler
from services.controlplane.resources.store import SEED_ACTOR, ResourceStore
from services.controlplane.rollouts.rollout_handler import RolloutHandler
from services.controlplane.rollouts.rollout_store import RolloutStore
from services.controlplane.rollouts.rollouts import Terms
from services.controlplane.slos.slo_handler import SloHandler
from services.controlplane.slos.slo_store import SloStore
from services.controlplane.watch.change_feed import ChangeFeed
from services.controlplane.watch.status_store import StatusStore
from services.controlplane.watch.watching import Watching

# A replica that hangs in the middle of something holds up the others no longer.
HUNG_SECONDS = 10
MIGRATIONS = Path(__file__).parent / "migrations"


async def serve(config: ControlPlaneConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    engine = sql.engine(config.sql, idle_in_transaction_seconds=HUNG_SECONDS)
    await sql.migrate(engine, MIGRATIONS)
    store, models, runs, partitions = ResourceStore(engine), ModelStore(engine), RunStore(engine), PartitionStore(engine)
    registry, changes = SchemaRegistry(engine), ChangeFeed(engine)
    await registry.prepare()
    schemas = DeclaredSchemas(registry, Catalogue(registry), Configuration(engine))
    applying = Applying(store, models, schemas, Dependents(config.lineage))
    if config.resources_dir is not None and await store.version() == 0:
        await _seed(applying, config.resources_dir)
    watching, election = Watching(changes, context, notifications=config.notifications), Election(engine, "scheduler")
    scheduler = Scheduler(store, ScheduleStore(engine), election)
    marking = PartitionWatching(partitions, context)
    try:
        async with emitting(config, context) as lineage, asyncio.TaskGroup() as group:
            loops = (
                watching.poll(),
                marking.poll(),
                reconciling.run(store, models, runs, partitions, context),
                telling.run(changes, lineage, context),
                StatusStore(engine).forget(context),
                SloStore(engine).run(context),
                RolloutStore(engine).run(Terms(config.rollout_soak_seconds, config.rollout_timeout_seconds), context),
                election.run(context),
                scheduler.run(context),
            )
            for loop in loops:
                group.create_task(loop)
            async with rest.serving(config.registry, registry):
                await serve_rpc(config.rpc, _register(engine, store, applying, watching, marking, registry=registry), context)
    finally:
        await engine.dispose()


async def _seed(applying: Applying, folder: Path) -> None:
    """Declares what an empty control plane begins with, unless another replica is faster."""
    try:
        await applying.apply(pb.ApplyRequest(resources=resourcefiles.read([folder]), message="seed"), SEED_ACTOR)
    except ArterialError as error:
        if error.reason is not Reason.CONFLICT:
            raise


def _register(
    engine: AsyncEngine,
    store: ResourceStore,
    applying: Applying,
    watching: Watching,
    marking: PartitionWatching,
    *,
    registry: SchemaRegistry,
) -> Register:
    def register(server: grpc.aio.Server) -> list[str]:
        models, jobs = ModelStore(engine), JobHandler(RunStore(engine), store, PartitionStore(engine))
        schemas = SchemaRegistryHandler(registry, Catalogue(registry), Configuration(engine))
        control_plane_service_pb2_grpc.add_ControlPlaneServiceServicer_to_server(
            ControlPlaneHandler(store, StatusStore(engine), applying, watching), server
        )
        schema_registry_service_pb2_grpc.add_SchemaRegistryServiceServicer_to_server(schemas, server)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
        partitions = PartitionHandler(PartitionStore(engine), marking, SloStore(engine))
        partition_service_pb2_grpc.add_PartitionServiceServicer_to_server(partitions, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelHandler(models), server)
        backups = BackupHandler(BackupStore(engine, MIGRATIONS), registry.prepare)
        backup_service_pb2_grpc.add_BackupServiceServicer_to_server(backups, server)
        rollout_service_pb2_grpc.add_RolloutServiceServicer_to_server(RolloutHandler(RolloutStore(engine), applying), server)
        slo_service_pb2_grpc.add_SloServiceServicer_to_server(SloHandler(SloStore(engine)), server)
        alpha = (job_service_pb2, partition_service_pb2, model_service_pb2, backup_service_pb2, rollout_service_pb2, slo_service_pb2)
        files = (pb, schema_registry_service_pb2, *alpha)
        return [service.full_name for file in files for service in file.DESCRIPTOR.services_by_name.values()]

    return register


def main() -> None:
    """Console script."""
    process.main("arterial-controlplane", ControlPlaneConfig, {"serve": serve})


if __name__ == "__main__":
    main()
