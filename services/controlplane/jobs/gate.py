"""Which partitions a run reads, and whether it may run. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from arterial.api.controlplane.v1 import specs_pb2
from services.controlplane.jobs.runs import TRAINING_SUFFIX, Input, Run
from services.controlplane.partitions.partitions import Partition, PartitionKey, PartitionState, pending

# Reasons of one run at most: a whole blocked year is told by its newest days.
MAX_REASONS = 20
# What is being made may have been read half; days that nobody has spoken of are not waited for.
_CLOSED = frozenset({PartitionState.BLOCKED, PartitionState.UNKNOWN, PartitionState.RUNNING, PartitionState.FAILED})


@dataclass(frozen=True)
class Window:
    """Partitions of a dataset that a run reads, `first` to `last`; the last must be ready, no other may be wrong or in the making."""

    dataset: str
    first: date
    last: date


def windows(inputs: Iterable[specs_pb2.ModelInput | Input], day: date) -> list[Window]:
    """What is read for a day."""
    ordinal = day.toordinal()
    return [Window(given.dataset, date.fromordinal(max(1, ordinal - given.days + 1)), day) for given in inputs]


def reads(run: Run, models: Mapping[str, specs_pb2.ModelSpec]) -> list[Window]:
    """What a run reads: its own inputs, and those of the declared model that it trains."""
    model = models.get(run.subject) if run.training else None
    return windows(run.inputs, run.partition_date) + ([] if model is None else windows(model.inputs, run.partition_date))


def mismatch(kind: str, model: specs_pb2.ModelSpec) -> str | None:
    """Why a training run of this kind is none of this model's; None if it is."""
    wanted = f"{model.service}{TRAINING_SUFFIX}"
    return None if kind == wanted else f"the model is trained by runs of kind {wanted}"


def closed_by(run: Run, models: Mapping[str, specs_pb2.ModelSpec], marked: Mapping[PartitionKey, Partition]) -> list[str]:
    """Why the run may not run, newest date first; empty if it may. A partition that is not in `marked` is pending.

    `marked` holds at least the partitions of the run's own date and those of its windows that are not ready.
    """
    if run.training and run.subject not in models:
        return [f"the model {run.subject} is not declared"]
    found = [_reason(partition) for window in reads(run, models) for partition in _obstacles(window, marked)]
    found.sort(reverse=True)
    reasons = [text for _, text in found]
    if len(reasons) > MAX_REASONS:
        reasons = [*reasons[:MAX_REASONS], f"and {len(reasons) - MAX_REASONS} more partitions"]
    return reasons


def _obstacles(window: Window, marked: Mapping[PartitionKey, Partition]) -> list[Partition]:
    newest = PartitionKey(window.dataset, window.last)
    own = marked.get(newest) or pending(newest)
    earlier = [
        partition
        for key, partition in marked.items()
        if key.dataset == window.dataset and window.first <= key.day < window.last and partition.state in _CLOSED
    ]
    return earlier + ([] if own.state is PartitionState.READY else [own])


def _reason(partition: Partition) -> tuple[date, str]:
    said = "; ".join(partition.reasons) or ("nothing was reported yet" if partition.state is PartitionState.PENDING else "")
    told = f"{partition.key.dataset} {partition.key.day.isoformat()} is {partition.state}"
    return partition.key.day, f"{told}: {said}" if said else told
