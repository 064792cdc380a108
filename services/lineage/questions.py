"""What is asked of the graph: by logical names, answered in nodes with owners and tiers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from chassis.errors import ArterialError, Reason
from services.lineage.graph import WHOLE, Graph, Job, Name, Place, dataset_name, job_name
from services.lineage.walks import Reached, Walk, downstream, downstream_of, upstream, upstream_of

UNKNOWN_TIER = 0


@dataclass(frozen=True)
class Node:
    """A node as it is shown."""

    name: str
    namespace: str
    is_job: bool
    owner: str
    tier: int
    distance: int = 0
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Nodes, and arrows between their names in the direction of the data."""

    nodes: Sequence[Node]
    edges: Sequence[tuple[str, str]]


def find(graph: Graph, name: str, columns: Collection[str] = ()) -> list[Place]:
    """The datasets of a logical name (or namespace/name), in all cells, or columns of them; of a job the datasets that it makes.

    Raises:
        ArterialError: NOT_FOUND if there is no such dataset, or it has no such column; datasets of unknown columns may have any.
    """
    found = graph.datasets.get(name, ())
    if not found:
        raise ArterialError(Reason.NOT_FOUND, f"no dataset is named {name}")
    known = {column for dataset in found for column in graph.columns_of(dataset)}
    unknown = [column for column in columns if known and column not in known]
    if unknown:
        raise ArterialError(Reason.NOT_FOUND, f"{name} has no column {', '.join(unknown)}")
    return [(dataset, column) for dataset in found for column in columns or (WHOLE,)]


def whole_or(column: str) -> tuple[str, ...]:
    """No columns for the whole."""
    return (column,) if column else ()


def made_from(graph: Graph, name: str, column: str, depth: int) -> Answer:
    """What a dataset, one of its columns, or a job is made from. Raises as `find` does, INVALID_REQUEST for a column of a job."""
    if jobs := _jobs(graph, name, column):
        return _answer(graph, upstream_of(graph, jobs, depth), {job.name for job in jobs})
    start = find(graph, name, whole_or(column))
    return _answer(graph, upstream(graph, start, depth), {dataset for dataset, _ in start})


def made_of(graph: Graph, name: str, column: str, depth: int) -> Answer:
    """What is made from a dataset, one of its columns, or by a job. Raises as `made_from` does."""
    if jobs := _jobs(graph, name, column):
        return _answer(graph, downstream_of(graph, jobs, depth), {job.name for job in jobs})
    start = find(graph, name, whole_or(column))
    return _answer(graph, downstream(graph, start, depth), {dataset for dataset, _ in start})


def impact(graph: Graph, name: str, columns: Collection[str]) -> tuple[Sequence[Node], Sequence[str]]:
    """Everything but jobs that is hit, most important first, and the owners of it. Raises as `find` does."""
    start = find(graph, name, columns)
    reached = downstream(graph, start).nodes({dataset for dataset, _ in start})
    nodes = [_shown(graph, node) for node in reached if not node.is_job]
    nodes.sort(key=lambda node: (node.tier == UNKNOWN_TIER, node.tier, node.distance, node.name))
    return nodes, list(dict.fromkeys(node.owner for node in nodes if node.owner))


def search(graph: Graph, text: str) -> list[Node]:
    """Nodes whose name contains a text, whatever its case, by name."""
    wanted = text.lower()
    datasets = [_shown(graph, Reached(key, False, 0)) for name, keys in graph.datasets.items() if wanted in name.lower() for key in keys]
    jobs = [_shown(graph, Reached(key, True, 0)) for name, keys in graph.jobs_by_name.items() if wanted in name.lower() for key in keys]
    return sorted([*datasets, *jobs], key=lambda node: (node.name, node.namespace))


def columns(graph: Graph, name: str) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """Column, type and inputs (dataset, column, transformation) of each column of a dataset. Raises as `find` does."""
    types: dict[str, str] = {}
    inputs: dict[str, dict[tuple[str, str, str], None]] = {}
    for dataset, _ in find(graph, name):
        types |= graph.columns_of(dataset)
        for made in (made for job in graph.producers.get(dataset, ()) for made in job.outputs if made.dataset == dataset):
            for column, places in [*made.columns.items(), *((column, made.rows) for column in types)]:
                for (source, used), how in sorted(places.items()):
                    inputs.setdefault(column, {})[(dataset_name(source), used, how)] = None
    return [(column, type_, list(inputs.get(column, {}))) for column, type_ in types.items()]


def _jobs(graph: Graph, name: str, column: str) -> list[Job]:
    """The jobs of a name, in all cells; none if it is a dataset's."""
    if name in graph.datasets or name not in graph.jobs_by_name:
        return []
    if column:
        raise ArterialError(Reason.INVALID_REQUEST, f"{name} is a job: it has no columns")
    return [graph.jobs[job] for job in graph.jobs_by_name[name]]


def _answer(graph: Graph, walk: Walk, start: Collection[Name]) -> Answer:
    nodes = [_shown(graph, node) for node in walk.nodes(start)]
    return Answer(nodes, list(dict.fromkeys((_name(graph, source), _name(graph, target)) for source, target in walk.edges)))


def _name(graph: Graph, name: Name) -> str:
    return job_name(name) if name in graph.jobs else dataset_name(name)


def _shown(graph: Graph, node: Reached) -> Node:
    if node.is_job:
        return Node(job_name(node.name), node.name.namespace, True, graph.jobs[node.name].owner, UNKNOWN_TIER, node.distance)
    facts = graph.facts.get(node.name)
    owner, tier = (facts.owner, facts.tier) if facts else ("", UNKNOWN_TIER)
    return Node(dataset_name(node.name), node.name.namespace, False, owner, tier, node.distance, tuple(sorted(node.columns)))
