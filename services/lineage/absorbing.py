"""What events change in the graph."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from services.lineage.graph import NEVER, Facts, Graph, Job, Name
from services.lineage.openlineage import Told


@dataclass
class Changes:
    """Jobs and facts to be stored; `redrawn` are the jobs whose edges differ; `events` counts the events that changed anything."""

    jobs: dict[Name, Job] = field(default_factory=dict)
    facts: dict[Name, Facts] = field(default_factory=dict)
    redrawn: set[Name] = field(default_factory=set)
    events: int = 0


def changes(graph: Graph, told: Iterable[Told]) -> Changes:
    """What these events change, in their order; an event that was overtaken (by event time) changes nothing."""
    result = Changes()
    for event in told:
        job = event.job is not None and _job(_current(result.jobs, graph.jobs, event.job.name), event, result)
        facts = [_facts(graph, fact, result) for fact in event.facts]
        result.events += bool(job or any(facts))
    return result


def _current(changed: Mapping[Name, Job], known: Mapping[Name, Job], name: Name) -> Job | None:
    return changed.get(name) or known.get(name)


def _job(current: Job | None, event: Told, result: Changes) -> bool:
    said = event.job
    if said is None or (current is not None and not event.complete):
        return False
    now = said if current is None else _now(current, said)
    if now is None or now == current:
        return False
    result.jobs[now.name] = now
    if current is not None and now.says_the_same(current):
        return False  # only the time of the last word moves
    result.redrawn.add(now.name)
    return True


def _now(current: Job, said: Job) -> Job | None:
    """What holds of a job after another event; None if it was overtaken."""
    if said.run_id and said.run_id == current.run_id:
        earlier, later = sorted((current, said), key=lambda job: job.event_time)
        return earlier.joined(later)
    return said if said.event_time >= current.event_time else None


def _facts(graph: Graph, said: Facts, result: Changes) -> bool:
    current = result.facts.get(said.name) or graph.facts.get(said.name) or Facts(said.name)
    now = current.updated(said)
    if now == current:
        return False
    result.facts[said.name] = now
    return _timeless(now) != _timeless(current)


def _timeless(facts: Facts) -> Facts:
    return replace(facts, columns_at=NEVER, owner_at=NEVER, tier_at=NEVER)
