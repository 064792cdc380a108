"""Verdicts by score and by rules, and what the store remembers."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.radar.v1alpha1 import radar_service_pb2 as pb
from arterial.api.radar.v1alpha1.risk_decision_pb2 import RiskDecision
from arterial.api.types.v1 import standing_pb2
from chassis import sql
from chassis.clock import SystemClock
from chassis.config import SqlConfig
from chassis.errors import ArterialError, Reason
from services.radar.assessing import Assessor, standing_of
from services.radar.decisions import Scored, judge
from services.radar.features import FEATURES
from services.radar.parts import MIGRATIONS
from services.radar.store import DecisionStore
from services.radar.velocities import Head, Velocities
from tests.radar.conftest import payment

POLICY = specs_pb2.RiskPolicySpec(
    review_micro=300_000, block_micro=800_000, max_age_seconds=60, max_accounts_per_instrument=3, max_accounts_per_device=3
)
NOW_US = 1_790_000_000_000_000


class Fixed:
    """A scorer that says what it is told, and counts how often it is asked."""

    def __init__(self, score_micro: int) -> None:
        self.score_micro = score_micro
        self.asked = 0

    async def score(self, features_milli: NDArray[np.int64], explained_from_micro: int) -> list[Scored]:
        """The same for all."""
        self.asked += len(features_milli)
        return [Scored(self.score_micro, ("instrument_many_accounts",), "v1")] * len(features_milli)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[DecisionStore]:
    """An empty store on real PostgreSQL."""
    engine = sql.engine(SqlConfig(url=database_url))
    await sql.migrate(engine, MIGRATIONS)
    yield DecisionStore(engine)
    await engine.dispose()


def assessor(velocities: Velocities, store: DecisionStore, score_micro: int) -> tuple[Assessor, Fixed]:
    """An assessor whose model always gives this score."""
    scorer = Fixed(score_micro)
    return Assessor(velocities, store, scorer, SystemClock(), "local"), scorer


def standing() -> standing_pb2.Standing:
    """Velocities of a moment ago."""
    return standing_of(Head(NOW_US - 5_000_000, NOW_US, 0, 41), 3, POLICY, NOW_US / 1e6)


def features(**values: int) -> list[int]:
    """Features, thousandths, zero but for those given."""
    return [values.get(name, 0) for name in FEATURES.names]


@pytest.mark.parametrize(
    ("score", "action"),
    [(0, "ALLOW"), (299_999, "ALLOW"), (300_000, "REVIEW"), (799_999, "REVIEW"), (800_000, "BLOCK"), (1_000_000, "BLOCK")],
)
def test_thresholds_of_the_policy_decide(score: int, action: str) -> None:
    """From its threshold on a score leads to the action; what is allowed needs no reason."""
    verdict = judge(features(), Scored(score, ("device_many_accounts",), "v7"), POLICY)
    assert RiskDecision.Action.Name(verdict.action) == f"ACTION_{action}"
    assert verdict.reasons == (() if action == "ALLOW" else ("device_many_accounts",))
    assert (verdict.score_micro, verdict.model_version) == (score, "v7")


def test_without_a_model_rules_decide() -> None:
    """So many accounts on one instrument block, one fewer do not, and a rule that is set to 0 is none."""
    at, below = features(instrument_accounts_1d=3000, device_accounts_1d=2000), features(instrument_accounts_1d=2000)
    assert judge(at, None, POLICY).action == RiskDecision.ACTION_BLOCK
    assert judge(at, None, POLICY).reasons == ("rule_instrument_accounts",)
    assert judge(below, None, POLICY).action == RiskDecision.ACTION_ALLOW
    assert judge(at, None, specs_pb2.RiskPolicySpec()).action == RiskDecision.ACTION_ALLOW
    assert judge(at, None, POLICY).model_version == ""


async def test_the_first_decision_holds(velocities: Velocities, store: DecisionStore) -> None:
    """A payment event that comes again, even under another model, gets the same decision, byte by byte, and is not scored again."""
    event = payment(NOW_US, f"account-{uuid.uuid4().hex}")
    first, _ = assessor(velocities, store, 500_000)
    other, scorer = assessor(velocities, store, 0)
    made = await first.assess([event], POLICY, standing)
    again = await other.assess([event, event], POLICY, standing)
    assert [each.decision for each in again] == [made[0].decision] * 2
    assert scorer.asked == 0
    assert made[0].decision.action == RiskDecision.ACTION_REVIEW
    assert made[0].standing.source == standing_pb2.VALUE_SOURCE_LIVE
    _, total = await store.cases(pb.ReviewCase.STATE_OPEN, 0, 10)
    assert total == 1


async def test_decisions_of_one_moment_agree(velocities: Velocities, store: DecisionStore) -> None:
    """Assessed by many at once, with different outcomes, a payment event has one decision, and its account one case."""
    account = f"account-\0-{uuid.uuid4().hex}"
    events = [payment(NOW_US + index, account) for index in range(5)]
    many = [assessor(velocities, store, score)[0] for score in (900_000, 400_000, 850_000, 350_000)]
    answers = await asyncio.gather(*(one.assess(events, POLICY, standing) for one in many))
    for place in range(len(events)):
        assert len({answer[place].decision.SerializeToString(deterministic=True) for answer in answers}) == 1
    cases, total = await store.cases(pb.ReviewCase.STATE_UNSPECIFIED, 0, 10)
    assert total == 1 and cases[0].account_id == account
    assert {decision.payment_event_id for decision in cases[0].decisions} == {event.event_id for event in events}


async def test_a_case_is_closed_once(velocities: Velocities, store: DecisionStore) -> None:
    """The same verdict again is fine, another is refused; what comes later opens the next case; both are listed in order."""
    account = f"account-{uuid.uuid4().hex}"
    blocks, _ = assessor(velocities, store, 900_000)
    await blocks.assess([payment(NOW_US, account)], POLICY, standing)
    (case,), _ = await store.cases(pb.ReviewCase.STATE_OPEN, 0, 10)
    closed = await store.resolve(case.case_id, pb.ReviewCase.STATE_FRAUD, "ada", "seen")
    assert (closed.state, closed.resolved_by, closed.note) == (pb.ReviewCase.STATE_FRAUD, "ada", "seen")
    assert await store.resolve(case.case_id, pb.ReviewCase.STATE_FRAUD, "bob", "") == closed
    with pytest.raises(ArterialError) as caught:
        await store.resolve(case.case_id, pb.ReviewCase.STATE_LEGITIMATE, "bob", "")
    assert caught.value.reason is Reason.REFUSED
    with pytest.raises(ArterialError) as caught:
        await store.resolve("nothing", pb.ReviewCase.STATE_FRAUD, "bob", "")
    assert caught.value.reason is Reason.NOT_FOUND
    await blocks.assess([payment(NOW_US + 1, account)], POLICY, standing)
    cases, total = await store.cases(pb.ReviewCase.STATE_UNSPECIFIED, 0, 10)
    assert total == 2
    assert [each.state for each in cases] == [pb.ReviewCase.STATE_FRAUD, pb.ReviewCase.STATE_OPEN]


def test_old_velocities_make_a_decision_stale() -> None:
    """Without a partial, or with one that is too old, the standing says so."""
    fresh = standing_of(Head(NOW_US - 5_000_000, NOW_US, 0, 41), 3, POLICY, NOW_US / 1e6)
    old = standing_of(Head(NOW_US - 61_000_000, NOW_US, 0, 41), 3, POLICY, NOW_US / 1e6)
    assert (fresh.source, fresh.stale, fresh.position.offset) == (standing_pb2.VALUE_SOURCE_LIVE, False, 42)
    assert (old.source, old.stale) == (standing_pb2.VALUE_SOURCE_LAST_GOOD, True)
    assert standing_of(None, 3, POLICY, NOW_US / 1e6).stale
