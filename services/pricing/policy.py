"""The declared policy of surge, and what products cost before it."""

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


def fare_table(desired: Desired) -> specs_pb2.FareTableSpec:
    """The table that the policy names. Raises NOT_FOUND."""
    name = surge_policy(desired).fare_table
    table = desired.fare_tables.get(name)
    if table is None:
        raise ArterialError(Reason.NOT_FOUND, f"FareTable {name} is not declared")
    return table
