"""Assessment: velocities, score, verdict, memory. The same for a request and for the stream."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.types.v1 import standing_pb2
from chassis.clock import Clock
from chassis.streaming.partials import policy_hash
from services.radar.decisions import Scored, decision_of, judge
from services.radar.features import AUTHORISED, Payment
from services.radar.partials import PARTIALS
from services.radar.store import DecisionStore, Made
from services.radar.velocities import Head, Velocities


class Scorer(Protocol):
    """A model at work."""

    async def score(self, features_milli: NDArray[np.int64], explained_from_micro: int) -> list[Scored] | None:
        """Scores of payments, with reasons from a score on; None while no model is loaded. Shape (n, features)."""


class Assessor:
    """Assesses payments; whatever is already decided stays so."""

    def __init__(self, velocities: Velocities, store: DecisionStore, scorer: Scorer, clock: Clock, region: str) -> None:
        self._velocities = velocities
        self._store = store
        self._scorer = scorer
        self._clock = clock
        self._region = region

    async def assess(
        self, payments: Sequence[Payment], policy: specs_pb2.RiskPolicySpec, standing: Callable[[], standing_pb2.Standing]
    ) -> list[Made]:
        """Takes payment events in their order into the velocities, and returns the decisions on the authorised ones.

        `standing` says how current the velocities are. Raises DEPENDENCY_UNAVAILABLE; called again, it goes on where it was.
        """
        features = await self._velocities.observe(payments, AUTHORISED)
        asked = [(payment, values) for payment, values in zip(payments, features, strict=True) if values is not None]
        if not asked:
            return []
        known = await self._store.known([payment.event_id for payment, _ in asked])
        fresh = [(payment, values) for payment, values in asked if payment.event_id not in known]
        if fresh:
            made = await self._decide(fresh, policy, standing)
            known |= {each.decision.payment_event_id: each for each in await self._store.remember(made)}
        return [known[payment.event_id] for payment, _ in asked]

    async def _decide(
        self, fresh: Sequence[tuple[Payment, list[int]]], policy: specs_pb2.RiskPolicySpec, standing: Callable[[], standing_pb2.Standing]
    ) -> list[Made]:
        scored = await self._scorer.score(np.array([values for _, values in fresh], np.int64), policy.review_micro)
        now_us, name, made = int(self._clock.now() * 1e6), policy_hash(policy), []
        for place, (payment, values) in enumerate(fresh):
            verdict = judge(values, None if scored is None else scored[place], policy)
            stood = standing()
            stood.computed_at.FromMicroseconds(now_us)
            if scored is None:
                stood.source = standing_pb2.VALUE_SOURCE_RULE_FALLBACK
            decision = decision_of(payment, values, verdict, region=self._region, policy_hash=name, decided_us=now_us)
            made.append(Made(decision, stood))
        return made


def standing_of(head: Head | None, partition: int, policy: specs_pb2.RiskPolicySpec, now: float) -> standing_pb2.Standing:
    """How current the velocities of a partition are at `now`, seconds; without any partial yet, nothing is known of their age."""
    standing = standing_pb2.Standing(source=standing_pb2.VALUE_SOURCE_LAST_GOOD, max_age_seconds=policy.max_age_seconds, stale=True)
    if head is None:
        return standing
    standing.as_of.FromMicroseconds(head.watermark_us)
    position = standing_pb2.SourcePosition(source=PARTIALS, incarnation=head.incarnation, partition=partition, offset=head.offset + 1)
    standing.position.CopyFrom(position)
    return aged(standing, now)


def aged(standing: standing_pb2.Standing, now: float) -> standing_pb2.Standing:
    """The standing as it is at `now`: one that was live is the last good one once it is older than it may be."""
    found = standing_pb2.Standing()
    found.CopyFrom(standing)
    found.stale = now - standing.as_of.ToMicroseconds() / 1e6 > standing.max_age_seconds
    if standing.source != standing_pb2.VALUE_SOURCE_RULE_FALLBACK:
        found.source = standing_pb2.VALUE_SOURCE_LAST_GOOD if found.stale else standing_pb2.VALUE_SOURCE_LIVE
    return found
