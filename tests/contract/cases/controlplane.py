"""The control plane: resources, schemas, runs, partitions and model versions."""

from google.protobuf import descriptor_pb2

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, schema_registry_service_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import backup_service_pb2 as backups
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import model_service_pb2 as models
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as partitions
from arterial.api.controlplane.v1alpha1 import rollout_service_pb2 as rollouts
from arterial.api.controlplane.v1alpha1 import slo_service_pb2 as slos
from chassis.errors import Reason
from tests.contract.case import BAD_PAGE, LONG, Case


def dataset(name: str = "contract/dataset", tier: int = 2) -> resource_pb2.Resource:
    """A dataset resource; tier 9 is invalid."""
    return resource_pb2.Resource(
        api_version="arterial.dev/v1",
        kind="Dataset",
        metadata=resource_pb2.Metadata(name=name, owner="data-platform"),
        dataset=specs_pb2.DatasetSpec(description="for the contract test", tier=tier),
    )


def schema() -> schema_registry_service_pb2.Schema:
    """A small self-contained schema."""
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="contract/v1/thing.proto", package="contract.v1", syntax="proto3")
    message = file.message_type.add(name="Thing")
    message.field.add(name="event_id", number=1, type=12, label=1)
    return schema_registry_service_pb2.Schema(file_descriptor_set=files.SerializeToString(), message="contract.v1.Thing")


def verdict(value: partitions.Verdict.ValueType) -> partitions.PartitionVerdict:
    """A verdict on a partition of a cell of its own."""
    return partitions.PartitionVerdict(dataset="lake/curated/trips", partition_date="2026-11-24", verdict=value)


def override(state: partitions.PartitionState.ValueType) -> partitions.OverridePartitionRequest:
    """An override of a partition of a cell of its own."""
    return partitions.OverridePartitionRequest(
        cell="contract", dataset="lake/curated/trips", partition_date="2026-11-24", state=state, reason="contract"
    )


def version(sha256: str) -> models.ModelVersion:
    """A version of a model that is not declared."""
    return models.ModelVersion(model="contract", version="1", path="contract/1", sha256=sha256)


def contract_run() -> jobs.CreateRunRequest:
    """A run that no worker takes."""
    return jobs.CreateRunRequest(kind="contract", subject="contract/table", cell="contract", partition_date="2026-11-24")


ABSENT_RUN = "run-0"
CASES = {
    "ControlPlaneService/Plan": Case(
        control.PlanRequest(resources=[dataset()]), control.PlanRequest(resources=[dataset(tier=9)]), "resources[0].dataset.tier"
    ),
    "ControlPlaneService/Apply": Case(
        control.ApplyRequest(resources=[dataset()]), control.ApplyRequest(resources=[dataset(tier=9)]), "resources[0].dataset.tier"
    ),
    "ControlPlaneService/GetResource": Case(
        control.GetResourceRequest(kind="Topic", name="trip_events_v2"), control.GetResourceRequest(name="trip_events_v2"), "kind"
    ),
    "ControlPlaneService/ListResources": Case(
        control.ListResourcesRequest(kind="Topic"), control.ListResourcesRequest(page=BAD_PAGE), "page.page_size"
    ),
    "ControlPlaneService/DescribeResource": Case(
        control.DescribeResourceRequest(kind="Dataset", name="lake/curated/trips"),
        control.DescribeResourceRequest(name="lake/curated/trips"),
        "kind",
    ),
    "ControlPlaneService/ListChanges": Case(
        control.ListChangesRequest(kind="Topic"), control.ListChangesRequest(page=BAD_PAGE), "page.page_size"
    ),
    "ControlPlaneService/DeleteResource": Case(
        control.DeleteResourceRequest(kind="Dataset", name="contract/absent"),
        control.DeleteResourceRequest(kind="Dataset"),
        "name",
        frozenset({Reason.NOT_FOUND}),
    ),
    "ControlPlaneService/Watch": Case(control.WatchRequest(), control.WatchRequest(resource_version=-1), "resource_version"),
    "ControlPlaneService/ReportStatus": Case(
        control.ReportStatusRequest(kind="Topic", name="trip_events_v2", status=resource_pb2.Status()),
        control.ReportStatusRequest(kind="Topic", name="trip_events_v2"),
        "status",
    ),
    "ControlPlaneService/ReportStatuses": Case(
        control.ReportStatusesRequest(
            component="contract", statuses=[control.ResourceStatus(kind="Topic", name="contract-absent", status=resource_pb2.Status())]
        ),
        control.ReportStatusesRequest(component="contract"),
        "statuses",
    ),
    "SchemaRegistryService/RegisterSchema": Case(
        schema_registry_service_pb2.RegisterSchemaRequest(subject="contract-value", schema=schema()),
        schema_registry_service_pb2.RegisterSchemaRequest(schema=schema()),
        "subject",
    ),
    "SchemaRegistryService/GetSchema": Case(
        schema_registry_service_pb2.GetSchemaRequest(schema_id=1), schema_registry_service_pb2.GetSchemaRequest(), "schema_id"
    ),
    "SchemaRegistryService/CheckSchema": Case(
        schema_registry_service_pb2.CheckSchemaRequest(subject="contract-value", schema=schema()),
        schema_registry_service_pb2.CheckSchemaRequest(subject="contract-value"),
        "schema",
    ),
    "SchemaRegistryService/GetSchemaVersion": Case(
        schema_registry_service_pb2.GetSchemaVersionRequest(subject="trip_events_v2-value"),
        schema_registry_service_pb2.GetSchemaVersionRequest(subject="trip_events_v2-value", version=-1),
        "version",
    ),
    "SchemaRegistryService/ListSubjects": Case(
        schema_registry_service_pb2.ListSubjectsRequest(),
        schema_registry_service_pb2.ListSubjectsRequest(page=BAD_PAGE),
        "page.page_size",
    ),
    "SchemaRegistryService/DeleteSubject": Case(
        schema_registry_service_pb2.DeleteSubjectRequest(subject="contract-absent-value"),
        schema_registry_service_pb2.DeleteSubjectRequest(),
        "subject",
        frozenset({Reason.NOT_FOUND}),
    ),
    "SchemaRegistryService/ConfigureSubject": Case(
        schema_registry_service_pb2.ConfigureSubjectRequest(subject="contract-value", compatibility=specs_pb2.SCHEMA_COMPATIBILITY_FULL),
        schema_registry_service_pb2.ConfigureSubjectRequest(subject="x" * 300),
        "subject",
    ),
    "BackupService/Backup": Case(backups.BackupRequest(), backups.BackupRequest(compression_level=10), "compression_level"),
    "BackupService/Restore": Case(
        backups.RestoreRequest(data=b"not a backup"), backups.RestoreRequest(), "data", frozenset({Reason.INVALID_REQUEST})
    ),
    "JobService/CreateRun": Case(
        contract_run(),
        jobs.CreateRunRequest(kind="contract", subject="contract/table", cell="contract", partition_date="today"),
        "partition_date",
    ),
    "JobService/CreateRuns": Case(
        jobs.CreateRunsRequest(run=contract_run(), last_date="2026-11-25"),
        jobs.CreateRunsRequest(run=contract_run(), last_date="tomorrow"),
        "last_date",
    ),
    "JobService/GetRun": Case(jobs.GetRunRequest(run_id=ABSENT_RUN), jobs.GetRunRequest(), "run_id", frozenset({Reason.NOT_FOUND})),
    "JobService/ListRuns": Case(jobs.ListRunsRequest(kind="contract"), jobs.ListRunsRequest(page=BAD_PAGE), "page.page_size"),
    "JobService/ListRunLog": Case(
        jobs.ListRunLogRequest(run_id=ABSENT_RUN), jobs.ListRunLogRequest(), "run_id", frozenset({Reason.NOT_FOUND})
    ),
    "JobService/CancelRun": Case(
        jobs.CancelRunRequest(run_id=ABSENT_RUN, reason="contract"),
        jobs.CancelRunRequest(run_id=ABSENT_RUN),
        "reason",
        frozenset({Reason.NOT_FOUND}),
    ),
    "JobService/RetryRun": Case(
        jobs.RetryRunRequest(run_id=ABSENT_RUN, reason="contract"),
        jobs.RetryRunRequest(run_id=ABSENT_RUN),
        "reason",
        frozenset({Reason.NOT_FOUND}),
    ),
    "JobService/TakeRun": Case(
        jobs.TakeRunRequest(worker="contract", cell="contract", kinds=["contract-absent"], lease_seconds=10),
        jobs.TakeRunRequest(worker="contract", cell="contract", kinds=["contract-absent"]),
        "lease_seconds",
    ),
    "JobService/KeepRun": Case(
        jobs.KeepRunRequest(run_id=ABSENT_RUN, lease="contract"),
        jobs.KeepRunRequest(run_id=ABSENT_RUN),
        "lease",
        frozenset({Reason.NOT_FOUND}),
    ),
    "JobService/FinishRun": Case(
        jobs.FinishRunRequest(run_id=ABSENT_RUN, lease="contract"),
        jobs.FinishRunRequest(run_id=ABSENT_RUN, lease="contract", reason=LONG * 20),
        "reason",
        frozenset({Reason.NOT_FOUND}),
    ),
    "RolloutService/AbortRollouts": Case(rollouts.AbortRolloutsRequest(), rollouts.AbortRolloutsRequest(kind="Topic", name=LONG), "name"),
    "RolloutService/ListRollouts": Case(rollouts.ListRolloutsRequest(), rollouts.ListRolloutsRequest(page=BAD_PAGE), "page.page_size"),
    "PartitionService/ReportVerdicts": Case(
        partitions.ReportVerdictsRequest(cell="contract", verdicts=[verdict(partitions.VERDICT_PASS)]),
        partitions.ReportVerdictsRequest(cell="contract", verdicts=[verdict(partitions.VERDICT_UNSPECIFIED)]),
        "verdicts[0].verdict",
    ),
    "PartitionService/GetPartition": Case(
        partitions.GetPartitionRequest(cell="contract", dataset="lake/curated/trips", partition_date="2026-11-24"),
        partitions.GetPartitionRequest(cell="contract", dataset="lake/curated/trips", partition_date="24.11.2026"),
        "partition_date",
    ),
    "PartitionService/ListPartitions": Case(
        partitions.ListPartitionsRequest(cell="contract"),
        partitions.ListPartitionsRequest(cell="contract", page=BAD_PAGE),
        "page.page_size",
    ),
    "PartitionService/WatchPartitions": Case(
        partitions.WatchPartitionsRequest(cell="contract"), partitions.WatchPartitionsRequest(cell="contract", revision=-1), "revision"
    ),
    "PartitionService/OverridePartition": Case(
        override(partitions.PARTITION_STATE_READY), override(partitions.PARTITION_STATE_RUNNING), "state"
    ),
    "PartitionService/WithdrawOverride": Case(
        partitions.WithdrawOverrideRequest(cell="contract", dataset="absent", partition_date="2026-11-24", reason="contract"),
        partitions.WithdrawOverrideRequest(cell="contract", dataset="absent", partition_date="2026-11-24"),
        "reason",
        frozenset({Reason.NOT_FOUND}),
    ),
    "PartitionService/ListOverrides": Case(
        partitions.ListOverridesRequest(cell="contract"), partitions.ListOverridesRequest(cell="contract", page=BAD_PAGE), "page.page_size"
    ),
    "SloService/GetSloStatus": Case(
        slos.GetSloStatusRequest(name="absent"), slos.GetSloStatusRequest(), "name", frozenset({Reason.NOT_FOUND})
    ),
    "SloService/ListSloStatuses": Case(slos.ListSloStatusesRequest(), slos.ListSloStatusesRequest(page=BAD_PAGE), "page.page_size"),
    "ModelService/RegisterVersion": Case(
        models.RegisterVersionRequest(version=version("a" * 64)),
        models.RegisterVersionRequest(version=version("short")),
        "version.sha256",
        frozenset({Reason.NOT_FOUND}),
    ),
    "ModelService/ReportShadow": Case(
        models.ReportShadowRequest(model="contract", version="1", answers=1),
        models.ReportShadowRequest(model="contract", version="1", answers=-1),
        "answers",
        frozenset({Reason.NOT_FOUND}),
    ),
    "ModelService/RollbackModel": Case(
        models.RollbackModelRequest(model="contract", reason="contract"),
        models.RollbackModelRequest(model="contract"),
        "reason",
        frozenset({Reason.NOT_FOUND}),
    ),
    "ModelService/ListVersions": Case(
        models.ListVersionsRequest(model="contract"), models.ListVersionsRequest(), "model", frozenset({Reason.NOT_FOUND})
    ),
}
