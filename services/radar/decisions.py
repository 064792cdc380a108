"""From features and score to a decision with reasons. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.radar.v1alpha1.risk_decision_pb2 import RiskDecision
from chassis.streaming.partials import derived_id
from services.radar.features import FEATURES, ONE_MILLI, Payment

PRODUCER, VERSION = "radar", "1"
MILLION = 1_000_000
# Reasons that a person can take in.
MAX_REASONS = 4
# The feature that a rule looks at, the policy's field that limits it, and the rule's stable code.
_RULES = (
    ("instrument_accounts_1d", "max_accounts_per_instrument", "rule_instrument_accounts"),
    ("device_accounts_1d", "max_accounts_per_device", "rule_device_accounts"),
)


@dataclass(frozen=True)
class Scored:
    """What a model says of a payment: probability of fraud, millionths, its strongest reasons, and which version said so."""

    score_micro: int
    reasons: tuple[str, ...]
    model_version: str


@dataclass(frozen=True)
class Verdict:
    """What is to be done, and why."""

    action: RiskDecision.Action.ValueType
    score_micro: int
    reasons: tuple[str, ...]
    model_version: str


def judge(features_milli: Sequence[int], scored: Scored | None, policy: specs_pb2.RiskPolicySpec) -> Verdict:
    """The verdict by the model's score, or, without a model, by the policy's rules alone: a broken rule blocks."""
    if scored is None:
        broken = broken_rules(features_milli, policy)
        action = RiskDecision.ACTION_BLOCK if broken else RiskDecision.ACTION_ALLOW
        return Verdict(action, MILLION if broken else 0, broken, "")
    if scored.score_micro >= max(policy.block_micro, policy.review_micro):
        action = RiskDecision.ACTION_BLOCK
    elif scored.score_micro >= policy.review_micro:
        action = RiskDecision.ACTION_REVIEW
    else:
        action = RiskDecision.ACTION_ALLOW
    reasons = () if action == RiskDecision.ACTION_ALLOW else scored.reasons + broken_rules(features_milli, policy)
    return Verdict(action, scored.score_micro, reasons[: MAX_REASONS + len(_RULES)], scored.model_version)


def broken_rules(features_milli: Sequence[int], policy: specs_pb2.RiskPolicySpec) -> tuple[str, ...]:
    """Codes of the rules that the payment breaks."""
    values = dict(zip(FEATURES.names, features_milli, strict=True))
    return tuple(code for name, limit, code in _RULES if 0 < getattr(policy, limit) <= values[name] // ONE_MILLI)


def decision_of(
    payment: Payment, features_milli: Sequence[int], verdict: Verdict, *, region: str, policy_hash: str, decided_us: int
) -> RiskDecision:
    """The decision as a record; its id follows from the payment event's, so that it is the same however often it is made."""
    decision = RiskDecision(
        event_id=derived_id("risk-decision", payment.event_id.hex()),
        region=region,
        city_id=payment.city_id,
        sequence=payment.stage,
        producer=PRODUCER,
        producer_version=VERSION,
        payment_id=payment.payment_id,
        account_id=payment.account_id,
        payment_event_id=payment.event_id,
        action=verdict.action,
        score_micro=verdict.score_micro,
        reasons=verdict.reasons,
        model_version=verdict.model_version,
        policy_hash=policy_hash,
        feature_set_version=FEATURES.version,
        features_milli=features_milli,
    )
    decision.event_time.FromMicroseconds(payment.time_us)
    decision.decided_at.FromMicroseconds(decided_us)
    return decision
