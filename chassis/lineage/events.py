"""Definitions as OpenLineage events (specification 2.x), built with OpenLineage's own classes. Loaded where an event is first built."""

from collections.abc import Iterable
from datetime import UTC, datetime

from openlineage.client.event_v2 import DatasetEvent, InputDataset, Job, JobEvent, OutputDataset, Run, RunEvent, RunState, StaticDataset
from openlineage.client.generated.base import DatasetFacet, JobFacet
from openlineage.client.generated.column_lineage_dataset import ColumnLineageDatasetFacet, Fields, InputField, Transformation
from openlineage.client.generated.ownership_dataset import Owner, OwnershipDatasetFacet
from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields
from openlineage.client.generated.sql_job import SQLJobFacet
from openlineage.client.generated.tags_dataset import TagsDatasetFacet, TagsDatasetFacetFields
from openlineage.client.serde import Serde
from openlineage.client.uuid import generate_new_uuid

from chassis.lineage.definition import CLICKHOUSE, ColumnInput, JobDefinition, Output, Ownership, instance

PRODUCER = "urn:arterial"
# The tag that carries a dataset's tier.
TIER = "tier"


def job_event(definition: JobDefinition, cell: str, at: float) -> str:
    """An event, JSON, of a job in a cell; `at` in seconds since 1970. Raises ValueError for a name that is no logical one.

    A run event COMPLETE; of a job that reads and makes nothing any more a job event, as a run without datasets says nothing of its job.
    """
    if not definition.inputs and not definition.outputs:
        return Serde.to_json(JobEvent(eventTime=_time(at), producer=PRODUCER, job=Job(f"arterial://{cell}", definition.name)))
    facets: dict[str, JobFacet] = {}
    if definition.sql:
        facets["sql"] = SQLJobFacet(query=definition.sql, dialect=CLICKHOUSE, producer=PRODUCER)
    event = RunEvent(
        eventTime=_time(at),
        producer=PRODUCER,
        eventType=RunState.COMPLETE,
        run=Run(str(generate_new_uuid())),
        job=Job(f"arterial://{cell}", definition.name, facets),
        inputs=[InputDataset(*instance(cell, name)) for name in dict.fromkeys(definition.inputs)],
        outputs=[_output(output, cell) for output in definition.outputs],
    )
    return Serde.to_json(event)


def ownership_event(ownership: Ownership, cell: str, at: float) -> str:
    """A dataset event, JSON, that says who answers for a dataset of a cell. Raises ValueError as `job_event` does."""
    facets: dict[str, DatasetFacet] = {
        "ownership": OwnershipDatasetFacet(owners=[Owner(ownership.owner)] if ownership.owner else [], producer=PRODUCER),
        "tags": TagsDatasetFacet([TagsDatasetFacetFields(TIER, str(ownership.tier), PRODUCER)], producer=PRODUCER),
    }
    dataset = StaticDataset(*instance(cell, ownership.dataset), facets=facets)
    return Serde.to_json(DatasetEvent(eventTime=_time(at), producer=PRODUCER, dataset=dataset))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")


def _output(output: Output, cell: str) -> OutputDataset:
    facets: dict[str, DatasetFacet] = {}
    if output.types:
        fields = [SchemaDatasetFacetFields(name, type_ or None) for name, type_ in output.types.items()]
        facets["schema"] = SchemaDatasetFacet(fields=fields, producer=PRODUCER)
    if output.columns:
        columns = {name: Fields(_input_fields(inputs, cell)) for name, inputs in output.columns.items()}
        facets["columnLineage"] = ColumnLineageDatasetFacet(columns, _input_fields(output.rows, cell), producer=PRODUCER)
    return OutputDataset(*instance(cell, output.dataset), facets=facets)


def _input_fields(inputs: Iterable[ColumnInput], cell: str) -> list[InputField]:
    return [InputField(*instance(cell, item.dataset), item.column, _transformations(item)) for item in inputs]


def _transformations(item: ColumnInput) -> list[Transformation]:
    kind, _, subtype = item.transformation.partition("/")
    return [Transformation(kind, subtype or None)]
