"""Which run a worker takes, by tier and size, and which must make place. Pure.

Bin packing: every worker declares what it has and what is free, and takes the largest run that fits (first fit, decreasing), the most
important tier first. So that small runs do not keep a large one waiting for ever, one that starves is given a worker that takes nothing
else of its tier until it fits; a run of tier 1 gets such a place at once, by stopping runs of tier 3.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.tiers import TIERS
from services.controlplane.jobs.runs import Capacity, Run

RESERVED, PREEMPTIBLE = (
    frozenset(tier for tier, means in TIERS.items() if means.compute_class == name) for name in ("reserved", "preemptible")
)
# Share of every worker that only runs of tier 1 may use.
RESERVED_SHARE = 0.25
# A run that has been due for so long is given a place of its own.
STARVING_SECONDS = 300.0
# A run of tier 1 waits so long for a worker before others are stopped for it.
PREEMPT_AFTER_SECONDS = 5.0
# A place that was made and not taken within this, because its worker died, is made anew elsewhere.
HOLD_SECONDS = 120.0
_NOTHING = Capacity()


@dataclass(frozen=True)
class Preemption:
    """Runs to stop, so that the worker has a place for another."""

    worker: str
    victims: Sequence[Run]


@dataclass(frozen=True)
class Room:
    """What a worker has in all and what of it is free; `kept` of that is for runs of reserved tiers only."""

    total: Capacity
    free: Capacity
    kept: Capacity

    def usable(self, tier: int) -> Capacity:
        """What runs of a tier may take."""
        if tier in RESERVED:
            return self.free
        return Capacity(self.free.memory_mib - self.kept.memory_mib, self.free.cpu_milli - self.kept.cpu_milli)


def room_of(total: Capacity, free: Capacity, reserved: Capacity = _NOTHING) -> Room:
    """The room of a worker whose runs of reserved tiers use so much: they use up what is kept for them first."""
    memory = max(0, int(total.memory_mib * RESERVED_SHARE) - reserved.memory_mib)
    return Room(total, free, Capacity(memory, max(0, int(total.cpu_milli * RESERVED_SHARE) - reserved.cpu_milli)))


def fits(run: Run, room: Room) -> bool:
    """Whether there is room for the run; what a worker does not declare, no run lacks."""
    has = room.usable(run.terms.tier)
    memory = not room.total.memory_mib or run.terms.memory_mib <= has.memory_mib
    return memory and (not room.total.cpu_milli or run.terms.cpu_milli <= has.cpu_milli)


def order(found: Iterable[Run], total: Capacity, now: datetime) -> list[Run]:
    """Runs that fit, in the order in which a worker should take them: by tier, those that starve by age, then the largest."""

    def place(run: Run) -> tuple[int, bool, float, int]:
        starving = starves(run, now)
        return run.terms.tier, not starving, 0.0 if starving else -_share(run, total), run.number

    return sorted(found, key=place)


def starves(run: Run, now: datetime) -> bool:
    """True if it could have run for a long time."""
    return run.due_at + timedelta(seconds=STARVING_SECONDS) <= now


def holds(run: Run, worker: str, now: datetime) -> bool:
    """True if the worker keeps a place for the run."""
    return run.place_worker == worker != "" and not place_lapsed(run, now)


def place_lapsed(run: Run, now: datetime) -> bool:
    """True if no worker keeps a place for it, or one did for so long that it must have died."""
    return run.made_place_at is None or run.made_place_at + timedelta(seconds=HOLD_SECONDS) <= now


def preemption(waiting: Run, running: Sequence[Run], now: datetime) -> Preemption | None:
    """The worker where stopping runs that may be preempted loses least and makes place; None if there is none.

    `running` are all runs that are running in the cell: what a worker has left is what it declared less what they need.
    """
    workers: defaultdict[str, list[Run]] = defaultdict(list)
    for run in running:
        workers[run.worker].append(run)
    offers = [offer for worker, held in sorted(workers.items()) if (offer := _offer(waiting, worker, held)) is not None]
    return min(offers, key=lambda offer: (len(offer.victims), _lost_seconds(offer, now)), default=None)


def _offer(waiting: Run, worker: str, held: Sequence[Run]) -> Preemption | None:
    victims = [run for run in held if run.terms.tier in PREEMPTIBLE and waiting.kind in run.worker_kinds]
    victims.sort(key=lambda run: (run.started_at or run.created_at, run.number), reverse=True)
    if not victims:
        return None
    total = victims[0].worker_has
    if not total.memory_mib and not total.cpu_milli:
        # A worker that declares nothing does one run at a time, or does not mind how many.
        return Preemption(worker, victims[:1])
    stopped: list[Run] = []
    while victims and not fits(waiting, _without(total, held, stopped)):
        stopped.append(victims.pop(0))
    if not stopped or not fits(waiting, _without(total, held, stopped)):
        return None
    needless = [run for run in stopped if fits(waiting, _without(total, held, [other for other in stopped if other != run]))]
    return Preemption(worker, [run for run in stopped if run not in needless[:1]])


def _without(total: Capacity, held: Sequence[Run], stopped: Sequence[Run]) -> Room:
    kept = [run.terms for run in held if run not in stopped]
    memory, cpu = sum(terms.memory_mib for terms in kept), sum(terms.cpu_milli for terms in kept)
    return room_of(total, Capacity(total.memory_mib - memory, total.cpu_milli - cpu))


def _lost_seconds(offer: Preemption, now: datetime) -> float:
    return sum((now - (run.started_at or now)).total_seconds() for run in offer.victims)


def _share(run: Run, total: Capacity) -> float:
    """The larger of the shares of memory and cores that the run needs."""
    shares = [need / has for need, has in ((run.terms.memory_mib, total.memory_mib), (run.terms.cpu_milli, total.cpu_milli)) if has]
    return max(shares, default=0.0)
