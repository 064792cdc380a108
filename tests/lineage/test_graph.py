"""Algebra of the graph: walks find what a plain search finds, and definitions replace each other."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from services.lineage.absorbing import changes
from services.lineage.graph import WHOLE, Graph, Job, Made, Name, Place
from services.lineage.openlineage import Told
from services.lineage.walks import downstream, upstream
from tests.lineage.events import dataset, event, lineage
from tests.lineage.test_openlineage import told

COLUMNS = ("a", "b", "c")
DATASETS = [Name("n", f"d{index}") for index in range(6)]
places = st.tuples(st.sampled_from(DATASETS), st.sampled_from(COLUMNS))
inputs = st.dictionaries(places, st.just("DIRECT/IDENTITY"), max_size=3)
made = st.builds(
    Made, st.sampled_from(DATASETS), st.dictionaries(st.sampled_from(COLUMNS), inputs.filter(bool), max_size=3), inputs
)  # fmt: skip
jobs = st.builds(
    Job,
    st.sampled_from([Name("n", f"j{index}") for index in range(6)]),
    st.lists(st.sampled_from(DATASETS), max_size=2, unique=True).map(tuple),
    st.lists(made, max_size=2, unique_by=lambda output: output.dataset).map(tuple),
)


def arrows(all_jobs: Iterable[Job]) -> set[tuple[Place, Place]]:
    """Every arrow between columns, or whole datasets, that the definitions draw: written out, without any index."""
    found: set[tuple[Place, Place]] = set()
    for job in all_jobs:
        sources = {source for output in job.outputs for inputs in (*output.columns.values(), output.rows) for source, _ in inputs}
        for output in job.outputs:
            named = {source for inputs in (*output.columns.values(), output.rows) for source, _ in inputs}
            found |= {(place, (output.dataset, column)) for column, places in output.columns.items() for place in places}
            found |= {(place, (output.dataset, WHOLE)) for place in output.rows}
            for source in sources | set(job.inputs):
                found.add(((source, WHOLE), (output.dataset, WHOLE)))
                if source not in named:
                    found |= {((source, column), (output.dataset, WHOLE)) for column in COLUMNS}
    return found


def reached(edges: set[tuple[Place, Place]], start: Place) -> dict[Name, set[str]]:
    """A plain search, one arrow at a time."""
    seen, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for source, target in edges:
            if source == here and target not in seen:
                seen.add(target)
                waiting.append(target)
    result: dict[Name, set[str]] = {}
    for name, column in seen:
        result.setdefault(name, set()).add(column)
    return {name: {WHOLE} if WHOLE in columns else columns for name, columns in result.items()}


@given(st.lists(jobs, max_size=12), places | st.tuples(st.sampled_from(DATASETS), st.just(WHOLE)))
def test_downstream_is_what_a_plain_search_reaches(all_jobs: list[Job], start: Place) -> None:
    """With every job defined anew at any time, a walk finds the datasets and columns that the last definitions lead to."""
    graph = Graph()
    for job in all_jobs:
        graph = graph.with_([job], [])
    walk = downstream(graph, [start])
    found = {name: {WHOLE} if WHOLE in columns else columns for name, columns in walk.columns.items()}
    assert found == reached(arrows({job.name: job for job in all_jobs}.values()), start)


@given(st.lists(jobs, max_size=12), places)
def test_upstream_is_the_reverse_of_downstream(all_jobs: list[Job], start: Place) -> None:
    """What a column is made from reaches it, and what reaches it as a column is what it is made from."""
    graph = Graph().with_({job.name: job for job in all_jobs}.values(), [])
    target, column = start
    for source, used in ((name, used) for name, columns in upstream(graph, [start]).columns.items() for used in columns):
        reach = downstream(graph, [(source, used)]).columns
        assert {column, WHOLE} & reach[target]
    direct = {place for job in graph.jobs.values() for place in job.made_from(start)}
    walked = upstream(graph, [start], 1).columns
    assert all(used in walked[source] or WHOLE in walked[source] for source, used in direct)


def absorbed(events: Iterable[Told]) -> Graph:
    """The graph after events, one at a time."""
    graph = Graph()
    for said in events:
        found = changes(graph, [said])
        graph = graph.with_(found.jobs.values(), found.facts.values())
    return graph


def test_a_later_event_replaces_what_an_earlier_one_said_in_any_order_of_arrival() -> None:
    """By event time, not by arrival; the former edges are gone."""
    early = event("j", [dataset("a")], [dataset("x", columnLineage=lineage({"c": ["a.c"]}))], at=1)
    late = event("j", [dataset("b")], [dataset("x", columnLineage=lineage({"c": ["b.c"]}))], at=2)
    for order in ((early, late), (late, early)):
        graph = absorbed(told(*order))
        (job,) = graph.jobs.values()
        assert [name.name for name in job.inputs] == ["b"]
        assert {name.name for name in graph.consumers} == {"b"}


def test_events_of_one_run_add_to_each_other() -> None:
    """START names inputs, COMPLETE outputs; an event without datasets takes nothing away."""
    run = {"runId": "0190d3c0-0000-7000-8000-000000000000"}
    start = event("j", [dataset("a")], [], at=1, run=run, eventType="START")
    complete = event("j", [], [dataset("x")], at=2, run=run)
    silent = event("j", [], [], at=3)
    for order in ((start, complete, silent), (complete, start, silent)):
        (job,) = absorbed(told(*order)).jobs.values()
        assert ([name.name for name in job.inputs], [made.dataset.name for made in job.outputs]) == (["a"], ["x"])


def test_a_static_job_event_without_datasets_empties_the_job() -> None:
    """A job event is a definition: what it does not name is no longer read or made."""
    graph = absorbed(told(event("j", [dataset("a")], [dataset("x")], at=1), event("j", [], [], at=2, run=None)))
    assert not graph.consumers
    assert not graph.producers
