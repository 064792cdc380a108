"""The graph: jobs, the datasets that they read and make, and what is known of each dataset. Values; a change makes a new graph."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

from chassis.lineage.definition import logical

NEVER = datetime.min.replace(tzinfo=UTC)
# Stands for a dataset as a whole where a column is asked for.
WHOLE = ""
JOB_SCHEME = "arterial://"


class Name(NamedTuple):
    """OpenLineage's name of a dataset or job."""

    namespace: str
    name: str


# Column of a dataset (WHOLE for all of it).
Place = tuple[Name, str]


def dataset_name(name: Name) -> str:
    """The logical name of a dataset, which is the same in all cells."""
    return logical(*name)


def job_name(name: Name) -> str:
    """The name by which a job is asked for."""
    return name.name if name.namespace.startswith(JOB_SCHEME) else f"{name.namespace}/{name.name}"


@dataclass(frozen=True)
class Made:
    """A dataset that a job makes: inputs of each column, and of its rows, with their transformations. No columns: they are not known."""

    dataset: Name
    columns: Mapping[str, Mapping[Place, str]] = field(default_factory=dict)
    rows: Mapping[Place, str] = field(default_factory=dict)

    @cached_property
    def sources(self) -> frozenset[Name]:
        """Datasets of which columns are named."""
        columns = (place for inputs in (*self.columns.values(), self.rows) for place in inputs)
        return frozenset(dataset for dataset, _ in columns)

    def used(self, column: str) -> Collection[Place]:
        """Columns that a column of this dataset (WHOLE: any) is made from, those that decide its rows included."""
        if column != WHOLE:
            return {*self.columns.get(column, ()), *self.rows}
        return {place for inputs in (*self.columns.values(), self.rows) for place in inputs}


@dataclass(frozen=True)
class Job:
    """What was last said of a job."""

    name: Name
    inputs: tuple[Name, ...] = ()
    outputs: tuple[Made, ...] = ()
    sql: str = ""
    owner: str = ""
    event_time: datetime = NEVER
    run_id: str = ""

    def says_the_same(self, other: "Job") -> bool:
        """Whether both say the same, whenever and by which run."""
        mine, theirs = (replace(job, event_time=NEVER, run_id="") for job in (self, other))
        return mine == theirs

    @cached_property
    def read(self) -> frozenset[Name]:
        """Datasets that it reads."""
        return frozenset(self.inputs).union(*(made.sources for made in self.outputs))

    @cached_property
    def made(self) -> frozenset[Name]:
        """Datasets that it makes."""
        return frozenset(output.dataset for output in self.outputs)

    @cached_property
    def forward(self) -> Mapping[Place, tuple[Place, ...]]:
        """Where each column that it reads goes: a column of an output, or WHOLE where it decides rows."""
        found: dict[Place, dict[Place, None]] = {}
        for made in self.outputs:
            for place in made.rows:
                found.setdefault(place, {})[(made.dataset, WHOLE)] = None
            for column, inputs in made.columns.items():
                for place in inputs:
                    found.setdefault(place, {})[(made.dataset, column)] = None
        return {place: tuple(targets) for place, targets in found.items()}

    @cached_property
    def coarse(self) -> Mapping[Name, tuple[Place, ...]]:
        """Outputs of which it is not said which columns of an input go in: then any goes in everywhere."""
        return {
            source: tuple((made.dataset, WHOLE) for made in self.outputs if source not in made.sources) for source in self.read
        }  # fmt: skip

    def made_from(self, target: Place) -> Collection[Place]:
        """The columns, or whole datasets, that a column of an output is made from."""
        dataset, column = target
        made = [output for output in self.outputs if output.dataset == dataset]
        coarse = [(source, WHOLE) for source in self.read for output in made if source not in output.sources]
        return {place for output in made for place in output.used(column)}.union(coarse)

    def joined(self, later: "Job") -> "Job":
        """What two events of one run say together: events of a run add to each other (OpenLineage); the later one wins."""
        outputs = {made.dataset: made for made in self.outputs}
        for made in later.outputs:
            outputs[made.dataset] = made if made.sources else outputs.get(made.dataset, made)
        inputs = tuple(dict.fromkeys(self.inputs + later.inputs))
        return replace(later, inputs=inputs, outputs=tuple(outputs.values()), sql=later.sql or self.sql, owner=later.owner or self.owner)


@dataclass(frozen=True)
class Facts:
    """What is known of a dataset itself, and since when (event time): its columns with types in order, its owner, its tier."""

    name: Name
    columns: Mapping[str, str] = field(default_factory=dict)
    columns_at: datetime = NEVER
    owner: str = ""
    owner_at: datetime = NEVER
    tier: int = 0
    tier_at: datetime = NEVER

    def updated(self, later: "Facts") -> "Facts":
        """Each fact as it was said last."""
        result = self
        if later.columns_at > NEVER and later.columns_at >= self.columns_at:
            result = replace(result, columns=later.columns, columns_at=later.columns_at)
        if later.owner_at > NEVER and later.owner_at >= self.owner_at:
            result = replace(result, owner=later.owner, owner_at=later.owner_at)
        if later.tier_at > NEVER and later.tier_at >= self.tier_at:
            result = replace(result, tier=later.tier, tier_at=later.tier_at)
        return result


@dataclass(frozen=True)
class Graph:
    """All jobs and facts. Never changed: `with_` gives a new one, so that a reader in another thread sees one state throughout."""

    jobs: Mapping[Name, Job] = field(default_factory=dict)
    facts: Mapping[Name, Facts] = field(default_factory=dict)
    consumers: Mapping[Name, tuple[Job, ...]] = field(default_factory=dict)
    producers: Mapping[Name, tuple[Job, ...]] = field(default_factory=dict)

    def with_(self, jobs: Iterable[Job], facts: Iterable[Facts]) -> "Graph":
        """The graph after these are replaced or added."""
        new_jobs, consumers, producers = dict(self.jobs), dict(self.consumers), dict(self.producers)
        for job in jobs:
            former = new_jobs.get(job.name, Job(job.name))
            new_jobs[job.name] = job
            _relink(consumers, former.read, job.read, job)
            _relink(producers, former.made, job.made, job)
        return Graph(new_jobs, {**self.facts, **{fact.name: fact for fact in facts}}, consumers, producers)

    def prepared(self) -> "Graph":
        """Itself, with everything that questions look up made now: whoever asks first does not wait for it."""
        for job in self.jobs.values():
            _ = job.forward, job.coarse
        _ = self.datasets, self.jobs_by_name
        return self

    @cached_property
    def datasets(self) -> Mapping[str, tuple[Name, ...]]:
        """Datasets by logical name; more than one where several cells have it."""
        found: dict[str, list[Name]] = {}
        for name in sorted({*self.facts, *self.consumers, *self.producers}):
            found.setdefault(dataset_name(name), []).append(name)
        return {logical_name: tuple(names) for logical_name, names in found.items()}

    @cached_property
    def jobs_by_name(self) -> Mapping[str, tuple[Name, ...]]:
        """Jobs by the name that they are asked for."""
        found: dict[str, list[Name]] = {}
        for name in sorted(self.jobs):
            found.setdefault(job_name(name), []).append(name)
        return {shown: tuple(names) for shown, names in found.items()}

    def columns_of(self, dataset: Name) -> Mapping[str, str]:
        """Columns that are known of a dataset, with types: by its schema, then those that jobs make or read."""
        facts = self.facts.get(dataset)
        result = dict(facts.columns) if facts else {}
        others = {column for job in self.consumers.get(dataset, ()) for source, column in job.forward if source == dataset}
        for job in self.producers.get(dataset, ()):
            others.update(*(made.columns for made in job.outputs if made.dataset == dataset))
        return result | {column: "" for column in sorted(others) if column not in result}


def _relink(links: dict[Name, tuple[Job, ...]], former: frozenset[Name], now: frozenset[Name], job: Job) -> None:
    for dataset in former | now:
        others = tuple(other for other in links.get(dataset, ()) if other.name != job.name)
        linked = (*others, job) if dataset in now else others
        if linked:
            links[dataset] = linked
        else:
            links.pop(dataset, None)
