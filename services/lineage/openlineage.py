"""OpenLineage events (specification 2.x, JSON): checked, and turned into what they say of jobs and datasets."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from chassis.errors import Violation
from chassis.lineage.definition import KINDS, logical
from chassis.lineage.sql import Extracted, extract
from chassis.logs import logger
from services.lineage.graph import Facts, Job, Made, Name, Place

# Names are keys of an index of PostgreSQL, whose entries end at 2,700 bytes.
MAX_NAME_BYTES = 1000
# Parsing longer statements takes seconds; their datasets are kept, their columns are not looked for.
MAX_SQL_LENGTH = 100_000
TIER_TAG = "tier"
# Columns, with types, that are known of a dataset so far.
Known = Callable[[Name], Mapping[str, str]]
_log = logger(__name__)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _named(text: str) -> str:
    if not text or len(text.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"must have 1 to {MAX_NAME_BYTES} bytes")
    return _storable(text)


Text = Annotated[str, AfterValidator(_storable)]
Label = Annotated[str, AfterValidator(_named)]


class _Part(BaseModel):
    """Part of an event. What we do not use is passed over: producers add facets of their own."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Transformation(_Part):
    type: Text = "DIRECT"
    subtype: Text | None = None


class _InputField(_Part):
    namespace: Label
    name: Label
    field: Label
    transformations: list[_Transformation] | None = None


class _Inputs(_Part):
    input_fields: list[_InputField] = Field(alias="inputFields", default_factory=list)


class _ColumnLineage(_Part):
    fields: dict[Label, _Inputs]
    dataset: list[_InputField] | None = None


class _SchemaField(_Part):
    name: Label
    type: Text | None = None


class _Schema(_Part):
    fields: list[_SchemaField] | None = None


class _Owner(_Part):
    name: Text


class _Ownership(_Part):
    owners: list[_Owner] | None = None


class _Tag(_Part):
    key: Text
    value: Any = None


class _Tags(_Part):
    tags: list[_Tag] | None = None


class _Sql(_Part):
    query: Text
    dialect: Text | None = None


class _Facets(_Part):
    schema_: _Schema | None = Field(alias="schema", default=None)
    lineage: _ColumnLineage | None = Field(alias="columnLineage", default=None)
    ownership: _Ownership | None = None
    tags: _Tags | None = None
    sql: _Sql | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_deleted(cls, value: Any) -> Any:
        """A facet may say that it is withdrawn; then it has no content."""
        if not isinstance(value, dict):
            return value
        return {name: facet for name, facet in value.items() if not (isinstance(facet, dict) and facet.get("_deleted"))}


class _Dataset(_Part):
    namespace: Label
    name: Label
    facets: _Facets | None = None

    @property
    def key(self) -> Name:
        return Name(self.namespace, self.name)


class _Job(_Dataset):
    pass


class _Run(_Part):
    run_id: UUID = Field(alias="runId")


class _Event(_Part):
    event_time: datetime = Field(alias="eventTime")
    producer: Text
    schema_url: Text = Field(alias="schemaURL")
    run: _Run | None = None
    job: _Job | None = None
    dataset: _Dataset | None = None
    inputs: list[_Dataset] | None = None
    outputs: list[_Dataset] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "_Event":
        if self.run is not None and self.job is None:
            raise ValueError("a run event needs a job")
        if self.job is None and self.dataset is None:
            raise ValueError("neither a run, a job nor a dataset event")
        return self

    @property
    def at(self) -> datetime:
        """A time without zone is UTC."""
        return self.event_time if self.event_time.tzinfo else self.event_time.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Told:
    """What one event says. `complete`: the job is all that it says; a run event without datasets says nothing of what the job does."""

    job: Job | None
    facts: tuple[Facts, ...]
    complete: bool = True


def read(events: Sequence[str], known: Known) -> tuple[list[Told], list[Violation]]:
    """What events say, and one violation for each that is none, with its index and the first field that is wrong."""
    told, violations = [], []
    for index, text in enumerate(events):
        try:
            told.append(_told(_Event.model_validate_json(text), known))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            violations.append(Violation(f"events[{index}]{path}", first["msg"]))
    return told, violations


def _told(event: _Event, known: Known) -> Told:
    if event.job is None:
        return Told(None, tuple(_facts(event.dataset, event.at)) if event.dataset else ())
    inputs, outputs = event.inputs or [], event.outputs or []
    facets = event.job.facets or _Facets()
    job = Job(
        name=event.job.key,
        inputs=tuple(dict.fromkeys(dataset.key for dataset in inputs)),
        outputs=_outputs(event, known),
        sql=facets.sql.query if facets.sql else "",
        owner=_owner(facets) or "",
        event_time=event.at,
        run_id=str(event.run.run_id) if event.run else "",
    )
    facts = tuple(fact for dataset in [*inputs, *outputs] for fact in _facts(dataset, event.at))
    return Told(job, facts, complete=event.run is None or bool(inputs or outputs))


def _facts(dataset: _Dataset, at: datetime) -> Iterator[Facts]:
    facets = dataset.facets or _Facets()
    facts = Facts(dataset.key)
    if facets.schema_ is not None and facets.schema_.fields:
        facts = replace(facts, columns={column.name: column.type or "" for column in facets.schema_.fields}, columns_at=at)
    owner, tier = _owner(facets), _tier(facets)
    if owner is not None:
        facts = replace(facts, owner=owner, owner_at=at)
    if tier is not None:
        facts = replace(facts, tier=tier, tier_at=at)
    if facts != Facts(dataset.key):
        yield facts


def _owner(facets: _Facets) -> str | None:
    return None if facets.ownership is None else ", ".join(owner.name for owner in facets.ownership.owners or ())


def _tier(facets: _Facets) -> int | None:
    values = [str(tag.value) for tag in (facets.tags.tags or () if facets.tags else ()) if tag.key.lower() == TIER_TAG]
    return int(values[0]) if values and re.fullmatch(r"\d{1,2}", values[0]) else None


def _outputs(event: _Event, known: Known) -> tuple[Made, ...]:
    outputs = event.outputs or []
    made = {dataset.key: _made(dataset.key, dataset.facets.lineage if dataset.facets else None) for dataset in outputs}
    silent = [dataset for dataset in outputs if dataset.facets is None or dataset.facets.lineage is None]
    sql = event.job.facets.sql if event.job and event.job.facets else None
    if silent and sql is not None:
        for found in _extracted(event, silent, sql, known):
            made[found.dataset] = found
    return tuple(made.values())


def _made(dataset: Name, lineage: _ColumnLineage | None) -> Made:
    if lineage is None:
        return Made(dataset)
    columns = {column: _places(inputs.input_fields) for column, inputs in lineage.fields.items()}
    return Made(dataset, {column: inputs for column, inputs in columns.items() if inputs}, _places(lineage.dataset or ()))


def _places(fields: Sequence[_InputField]) -> dict[Place, str]:
    result: dict[Place, str] = {}
    for item in fields:
        first = (item.transformations or [_Transformation()])[0]
        result[(Name(item.namespace, item.name), item.field)] = f"{first.type}/{first.subtype}" if first.subtype else first.type
    return result


def _extracted(event: _Event, silent: Sequence[_Dataset], sql: _Sql, known: Known) -> Iterator[Made]:
    """Column lineage of the output that the job's SQL makes, where the event itself gives none."""
    if len(sql.query) > MAX_SQL_LENGTH:
        _log.info("SQL is too long to look for columns", job=event.job.name if event.job else "", length=len(sql.query))
        return
    names = {_in_sql(dataset.key): dataset.key for dataset in event.inputs or ()}
    given = {dataset.key: _columns(dataset) for dataset in event.inputs or ()}
    schemas = {shown: given[name] or dict(known(name)) for shown, name in names.items()}
    try:
        found = extract(sql.query, schemas, (sql.dialect or "").lower())
    except Exception as error:  # foreign SQL may break a parser in any way; the event is good all the same
        _log.info("SQL not understood, datasets are kept without columns", job=event.job.name if event.job else "", error=str(error)[:300])
        return
    output = _target(found, silent)
    if output is None:
        return
    columns = _as_named(found, list(_columns(output)))

    def places(inputs: Sequence[Any]) -> dict[Place, str]:
        return {(names.get(item.dataset, Name(output.namespace, item.dataset)), item.column): item.transformation for item in inputs}

    yield Made(output.key, {name: places(inputs) for name, inputs in columns.items() if inputs}, places(found.rows))


def _in_sql(name: Name) -> str:
    """The name of a dataset in SQL: here the logical one, elsewhere that within its namespace."""
    return logical(*name) if name.namespace.partition("://")[0] in KINDS else name.name


def _columns(dataset: _Dataset) -> dict[str, str]:
    schema = dataset.facets.schema_ if dataset.facets else None
    return {column.name: column.type or "" for column in schema.fields or ()} if schema else {}


def _target(found: Extracted, silent: Sequence[_Dataset]) -> _Dataset | None:
    """The output that a statement writes: the one of its name, else the only one."""
    wanted = found.target.lower()
    named = [d for d in silent if wanted and (_in_sql(d.key).lower() == wanted or d.name.lower().endswith(f".{wanted}"))]
    return named[0] if len(named) == 1 else (silent[0] if len(silent) == 1 else None)


def _as_named(found: Extracted, columns: list[str]) -> Mapping[str, Sequence[Any]]:
    """An INSERT without a list of columns fills those of the table by position."""
    if len(columns) != len(found.columns) or set(columns) == set(found.columns):
        return found.columns
    return dict(zip(columns, found.columns.values(), strict=True))
