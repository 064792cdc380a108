"""Which policy radar follows."""

from arterial.api.controlplane.v1 import specs_pb2
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason

POLICY = "risk"


def risk_policy(desired: Desired) -> specs_pb2.RiskPolicySpec:
    """The declared policy. Raises NOT_FOUND."""
    policy = desired.risk_policies.get(POLICY)
    if policy is None:
        raise ArterialError(Reason.NOT_FOUND, f"RiskPolicy {POLICY} is not declared")
    return policy
