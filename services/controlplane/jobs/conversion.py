"""Between the messages of the contract and the values of the domain."""

from collections.abc import Iterable
from datetime import date, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2, model_service_pb2
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as partition_pb
from chassis.errors import ArterialError, Reason, Violation
from services.controlplane.jobs.run_store import LogLine
from services.controlplane.jobs.runs import DEFAULT_MAX_ATTEMPTS, Capacity, Input, Run, Terms
from services.controlplane.models.model_store import Stored
from services.controlplane.partitions.partition_store import Recorded
from services.controlplane.partitions.partitions import Aspect, Judged, Override, Partition, PartitionKey, PartitionState, Verdict


def day(text: str, field: str) -> date:
    """A date as a request gives it. Raises INVALID_REQUEST for one that is in no calendar."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"{text} is not a date", violations=[Violation(field, str(error))]) from error


def stored(text: str) -> str:
    """Text as PostgreSQL can keep it: NUL, which it cannot, becomes the replacement character."""
    return text.replace("\0", "\ufffd")


def state_name(name: str, prefix: str) -> str:
    """The domain's name of an enum value, "" for UNSPECIFIED."""
    short = name.removeprefix(prefix)
    return "" if short == "UNSPECIFIED" else short


def terms(message: specs_pb2.RunTerms, max_attempts: int = 0) -> Terms:
    """Terms as they are given; `max_attempts` where the message has none."""
    return Terms(
        max_attempts=message.max_attempts or max_attempts or DEFAULT_MAX_ATTEMPTS,
        timeout_seconds=message.timeout_seconds,
        max_concurrent=message.max_concurrent,
        memory_mib=message.memory_mib,
        cpu_milli=message.cpu_milli,
        tier=message.tier,
    )


def capacity(message: job_service_pb2.Capacity) -> Capacity:
    """What a worker has."""
    return Capacity(message.memory_mib, message.cpu_milli)


def inputs(messages: Iterable[specs_pb2.ModelInput]) -> tuple[Input, ...]:
    """What a run reads besides what its model says."""
    return tuple(Input(stored(message.dataset), message.days) for message in messages)


def judged(verdict: partition_pb.PartitionVerdict, place: int) -> Judged:
    """A verdict of a report."""
    key = PartitionKey(stored(verdict.dataset), day(verdict.partition_date, f"verdicts[{place}].partition_date"))
    name = state_name(partition_pb.Verdict.Name(verdict.verdict), "VERDICT_")
    aspect = state_name(partition_pb.Aspect.Name(verdict.aspect), "ASPECT_") or Aspect.QUALITY
    reasons, incidents = tuple(map(stored, verdict.reasons)), tuple(map(stored, verdict.incident_ids))
    value = verdict.value if verdict.HasField("value") else None
    return Judged(key, Verdict(name), verdict.table_version, reasons, incidents, Aspect(aspect), value=value)


def verdict_message(verdict: Judged) -> partition_pb.PartitionVerdict:
    """A verdict as it was reported."""
    return partition_pb.PartitionVerdict(
        dataset=verdict.key.dataset,
        partition_date=verdict.key.day.isoformat(),
        verdict=partition_pb.Verdict.Value(f"VERDICT_{verdict.verdict}"),
        table_version=verdict.table_version,
        reasons=verdict.reasons,
        incident_ids=verdict.incident_ids,
        aspect=partition_pb.Aspect.Value(f"ASPECT_{verdict.aspect}"),
        reported_at=timestamp(verdict.reported_at),
        value=verdict.value,
    )


def partition_message(cell: str, partition: Partition) -> partition_pb.Partition:
    """A partition."""
    return partition_pb.Partition(
        cell=cell,
        dataset=partition.key.dataset,
        partition_date=partition.key.day.isoformat(),
        state=_partition_state(partition.state),
        reasons=partition.reasons,
        incident_ids=partition.incident_ids,
        table_version=partition.table_version,
        state_changed_at=timestamp(partition.state_changed_at),
        override=None if partition.override is None else override_message(partition.key, partition.override),
        judged_state=_partition_state(partition.judged_state),
        revision=partition.revision,
        run_id=f"run-{partition.run}" if partition.run else "",
    )


def override_message(key: PartitionKey, override: Override) -> partition_pb.Override:
    """An override that holds."""
    return partition_pb.Override(
        dataset=key.dataset,
        partition_date=key.day.isoformat(),
        state=_partition_state(override.state),
        reason=override.reason,
        actor=override.actor,
        made_at=timestamp(override.made_at),
    )


def recorded_message(recorded: Recorded) -> partition_pb.Override:
    """An override as it is recorded."""
    message = override_message(recorded.key, recorded.override)
    if recorded.withdrawn_at is not None:
        message.withdrawn_at.FromDatetime(recorded.withdrawn_at)
    message.withdrawn_by, message.withdrawn_because = recorded.withdrawn_by, recorded.withdrawn_because
    return message


def _partition_state(state: PartitionState) -> partition_pb.PartitionState.ValueType:
    return partition_pb.PartitionState.Value(f"PARTITION_STATE_{state}")


def run_message(run: Run) -> job_service_pb2.Run:
    """A run."""
    return job_service_pb2.Run(
        run_id=run.run_id,
        kind=run.kind,
        subject=run.subject,
        cell=run.cell,
        partition_date=run.partition_date.isoformat(),
        state=job_service_pb2.RunState.Value(f"RUN_STATE_{run.state}"),
        reasons=run.reasons,
        attempt=run.attempt,
        max_attempts=run.terms.max_attempts,
        worker=run.worker,
        created_at=timestamp(run.created_at),
        started_at=timestamp(run.started_at),
        ended_at=timestamp(run.ended_at),
        outputs=run.outputs,
        was_suspended=run.was_suspended,
        schedule=run.schedule,
        scheduled_for=timestamp(run.scheduled_for),
        terms=specs_pb2.RunTerms(**vars(run.terms)),
        inputs=[specs_pb2.ModelInput(dataset=given.dataset, days=given.days) for given in run.inputs],
        produces=run.produces,
        due_at=timestamp(run.due_at),
    )


def line_message(line: LogLine) -> job_service_pb2.RunLogLine:
    """A line of a run's log."""
    return job_service_pb2.RunLogLine(attempt=line.attempt, written_at=timestamp(line.written_at), text=line.text)


def version_message(version: Stored) -> model_service_pb2.ModelVersion:
    """A version of a model: what was registered, with what the control plane says of it."""
    message = model_service_pb2.ModelVersion()
    message.CopyFrom(version.registered)
    message.stage = model_service_pb2.VersionStage.Value(f"VERSION_STAGE_{version.stage}")
    del message.reasons[:]
    message.reasons.extend(version.judged.reasons)
    message.registered_at.FromDatetime(version.registered_at)
    message.stage_changed_at.FromDatetime(version.stage_changed_at)
    return message


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A time, if there is one."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
