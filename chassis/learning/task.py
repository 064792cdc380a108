"""What a trainer is given: a training run, the stores that it reads, and the desired state as the run began."""

from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from functools import cached_property
from typing import Protocol

from pydantic import ConfigDict

from arterial.api.controlplane.v1 import control_plane_service_pb2, specs_pb2
from chassis.config import LakeConfig, OlapConfig, Part
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Candidate

# Writes a line into the log of the run.
Log = Callable[[str], None]


class Task(Part):
    """A training run, as one JSON document: it crosses to the process that trains."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    # "module:function" of the Trainer.
    trainer: str
    run_id: str
    # Name of the Model that is trained, and what its new version is to be called.
    model: str
    version: str
    created_at: str
    # Date of the newest partitions to read.
    partition_date: date
    lake: LakeConfig
    olap: OlapConfig
    models: LakeConfig
    # All resources: an ApplyResponse, serialised.
    resources: bytes

    @cached_property
    def desired(self) -> Desired:
        """The desired state as the run began."""
        return Desired(tuple(control_plane_service_pb2.ApplyResponse.FromString(self.resources).resources))

    @property
    def spec(self) -> specs_pb2.ModelSpec:
        """The declared Model. Raises NOT_FOUND."""
        declared = self.desired.models.get(self.model)
        if declared is None:
            raise ArterialError(Reason.NOT_FOUND, f"Model {self.model} is not declared")
        return declared.model

    def window(self, dataset: str) -> tuple[date, date]:
        """First and last partition date of a declared input that the run reads.

        Raises:
            ArterialError: REFUSED if the Model does not declare the dataset: no gate would have held the run for its partitions.
        """
        days = [each.days for each in self.spec.inputs if each.dataset == dataset]
        if not days:
            raise ArterialError(Reason.REFUSED, f"training of {self.model} reads {dataset}, which its Model does not declare as an input")
        return self.partition_date - timedelta(days=max(days) - 1), self.partition_date


class Trainer(Protocol):
    """Makes a version of a model. It runs in a process of its own, so it may block and take memory.

    An exception fails the attempt, with its text as the reason.
    """

    def __call__(self, task: Task, log: Log) -> Awaitable[Candidate]:
        """Reads, fits, measures on data that fitting did not see."""
