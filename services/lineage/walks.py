"""Walks through the graph: what is made from a node, and what a node is made from, nearest first."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from services.lineage.graph import WHOLE, Graph, Job, Name, Place

# Of a job and the columns of one dataset at hand: the places one step further.
Step = Callable[[Job, Name, Collection[str]], set[Place]]


@dataclass(frozen=True)
class Reached:
    """A node: steps from where the walk began (a job counts with what it makes, or reads), and columns (empty: the whole)."""

    name: Name
    is_job: bool
    distance: int
    columns: frozenset[str] = frozenset()


@dataclass
class Walk:
    """What a walk found, nearest first; `edges` are arrows in the direction of the data."""

    jobs: dict[Name, int] = field(default_factory=dict)
    datasets: dict[Name, int] = field(default_factory=dict)
    columns: dict[Name, set[str]] = field(default_factory=dict)
    edges: dict[tuple[Name, Name], None] = field(default_factory=dict)

    def nodes(self, start: Collection[Name]) -> list[Reached]:
        """All nodes but those where it began: by distance, jobs before datasets, then by name."""
        found = [Reached(name, True, distance) for name, distance in self.jobs.items() if name not in start]
        for name, distance in self.datasets.items():
            if name not in start:
                columns = self.columns[name]
                found.append(Reached(name, False, distance, frozenset() if WHOLE in columns else frozenset(columns)))
        return sorted(found, key=lambda node: (node.distance, not node.is_job, node.name))


def downstream(graph: Graph, start: Iterable[Place], depth: int = 0) -> Walk:
    """What is made from datasets or columns of them, up to `depth` steps (0: all).

    A column reaches what is made from it. Where it decides rows, or a job does not say where the columns of an input go, it reaches the
    whole output; a whole dataset reaches the whole of everything after it.
    """
    return _walk(_begun(start, 0), depth, graph.consumers, _made_of, forward=True)


def upstream(graph: Graph, start: Iterable[Place], depth: int = 0) -> Walk:
    """What datasets or columns of them are made from, up to `depth` steps (0: all): columns where known, else whole datasets."""
    return _walk(_begun(start, 0), depth, graph.producers, _made_from, forward=False)


def downstream_of(graph: Graph, jobs: Collection[Job], depth: int = 0) -> Walk:
    """What jobs make, and what is made from that."""
    walk = _begun(((dataset, WHOLE) for job in jobs for dataset in job.made), 1)
    walk.edges |= {(job.name, dataset): None for job in jobs for dataset in sorted(job.made)}
    return _walk(walk, depth, graph.consumers, _made_of, forward=True)


def upstream_of(graph: Graph, jobs: Collection[Job], depth: int = 0) -> Walk:
    """What jobs read, and what that is made from."""
    used = (place for job in jobs for dataset in job.made for place in job.made_from((dataset, WHOLE)))
    unused = ((dataset, WHOLE) for job in jobs if not job.outputs for dataset in job.read)
    walk = _begun((*used, *unused), 1)
    walk.edges |= {(dataset, job.name): None for job in jobs for dataset in sorted(job.read)}
    return _walk(walk, depth, graph.producers, _made_from, forward=False)


def _made_of(job: Job, dataset: Name, columns: Collection[str]) -> set[Place]:
    if WHOLE in columns:
        return {(made, WHOLE) for made in job.made}
    forward = job.forward
    found = {place for column in columns for place in forward.get((dataset, column), ())}
    return found.union(job.coarse.get(dataset, ()))


def _made_from(job: Job, dataset: Name, columns: Collection[str]) -> set[Place]:
    return {place for column in columns for place in job.made_from((dataset, column))}


def _begun(start: Iterable[Place], distance: int) -> Walk:
    walk = Walk()
    for dataset, column in start:
        walk.datasets[dataset] = distance
        walk.columns.setdefault(dataset, set()).add(column)
    return walk


def _walk(walk: Walk, depth: int, links: Mapping[Name, tuple[Job, ...]], step: Step, *, forward: bool) -> Walk:
    """Goes on from where a walk has begun, one step at a time."""
    fresh = {dataset: set(columns) for dataset, columns in walk.columns.items()}
    distance = max(walk.datasets.values(), default=0)
    while fresh and (not depth or distance < depth):
        distance += 1
        found: dict[Name, set[str]] = {}
        for dataset, columns in fresh.items():
            for job in links.get(dataset, ()):
                places = step(job, dataset, columns)
                # A job that reads nothing is where data begin: whoever asks what a dataset is made from gets it.
                if not places and job.outputs and job.read:
                    continue
                walk.jobs.setdefault(job.name, distance)
                walk.edges[(dataset, job.name) if forward else (job.name, dataset)] = None
                for target, column in places:
                    walk.edges[(job.name, target) if forward else (target, job.name)] = None
                    found.setdefault(target, set()).add(column)
        fresh = _news(walk, found, distance)
    return walk


def _news(walk: Walk, found: Mapping[Name, set[str]], distance: int) -> dict[Name, set[str]]:
    """The columns that the walk did not have yet, which it has from now on; the whole makes its columns no news."""
    fresh: dict[Name, set[str]] = {}
    for dataset, columns in found.items():
        known = walk.columns.setdefault(dataset, set())
        news = set() if WHOLE in known else ({WHOLE} if WHOLE in columns else columns - known)
        if news:
            known |= news
            walk.datasets.setdefault(dataset, distance)
            fresh[dataset] = news
    return fresh
