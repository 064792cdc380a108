"""The declared policy of surge."""

from arterial.api.controlplane.v1 import specs_pb2
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason

POLICY = "surge"


def surge_policy(desired: Desired) -> specs_pb2.PricingPolicySpec:
    """The policy. Raises NOT_FOUND."""
    policy = desired.pricing_policies.get(POLICY)
    if policy is None:
        raise ArterialError(Reason.NOT_FOUND, f"PricingPolicy {POLICY} is not declared")
    return policy
