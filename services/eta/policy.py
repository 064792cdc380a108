"""The declared policy of live speeds and travel times."""

from arterial.api.controlplane.v1 import specs_pb2
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason

POLICY = "eta"


def eta_policy(desired: Desired) -> specs_pb2.EtaPolicySpec:
    """The policy. Raises NOT_FOUND."""
    policy = desired.eta_policies.get(POLICY)
    if policy is None:
        raise ArterialError(Reason.NOT_FOUND, f"EtaPolicy {POLICY} is not declared")
    return policy
