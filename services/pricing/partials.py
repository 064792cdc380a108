"""Partials of surge: buckets of counts per cell."""

from collections.abc import Callable

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from chassis.streaming.partials import CellPartials, PartialForm
from services.pricing.features import FEATURE_SET_VERSION, SOURCES


def surge_partials(
    policy: Callable[[], specs_pb2.PricingPolicySpec], region: str
) -> CellPartials[PricingPartial, specs_pb2.PricingPolicySpec]:
    """The `Features` of the surge combiner."""
    return CellPartials(PartialForm(PricingPartial, "pricing-combine", "1", FEATURE_SET_VERSION, region), policy, SOURCES)
