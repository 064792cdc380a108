"""The surge multiplier: a documented formula over demand and supply, in integer thousandths. Pure arithmetic on columns.

For a cell, over the sliding window of event time that ends at the tick:

    demand   = session_weight * sessions + quote_weight * quotes + request_weight * requests
    supply   = available heartbeats * heartbeat seconds / window seconds       (mean number of available drivers)
    capacity = max(supply, half a driver) * trips per driver
    raw      = (demand / capacity) ^ elasticity where demand >= min_demand and demand > capacity, else 1

`raw` is capped, and a multiplier moves from tick to tick by at most the step limit. Counts are integers and sums are exact; the power
is the one floating-point step, rounded to a thousandth at once. The form follows the supply-demand imbalance pricing of Hall, Kendrick
and Nosko, "The Effects of Uber's Surge Pricing" (2015), with an exponent below 1 to damp it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from services.pricing.features import AVAILABLE, QUOTE, REQUEST, SESSION

ONE_MILLI = 1000
# Capacity never counts as less than half a driver: a cell without drivers surges by its demand, not to infinity.
LEAST_SUPPLY_MILLI = 500


@dataclass(frozen=True)
class Multipliers:
    """Per cell, shape (n,) each, thousandths."""

    demand_milli: NDArray[np.int64]
    supply_milli: NDArray[np.int64]
    raw_milli: NDArray[np.int64]
    multiplier_milli: NDArray[np.int64]


def multipliers(counts: NDArray[np.int64], previous_milli: NDArray[np.int64], policy: specs_pb2.PricingPolicySpec) -> Multipliers:
    """Multipliers of cells from their counts within the window, shape (n, measures), and their previous multipliers, shape (n,)."""
    demand = (
        counts[:, SESSION] * policy.session_weight_milli
        + counts[:, QUOTE] * policy.quote_weight_milli
        + counts[:, REQUEST] * policy.request_weight_milli
    )
    supply = counts[:, AVAILABLE] * policy.supply_heartbeat_seconds * ONE_MILLI // policy.window_seconds
    capacity = np.maximum(supply, LEAST_SUPPLY_MILLI) * policy.trips_per_driver_milli // ONE_MILLI
    short = (demand >= policy.min_demand_milli) & (demand > capacity)
    ratio = np.where(short, demand / np.maximum(capacity, 1), 1.0)
    raw = np.rint(ONE_MILLI * ratio ** (policy.elasticity_milli / ONE_MILLI)).astype(np.int64)
    capped = np.minimum(raw, policy.cap_milli)
    limited = np.clip(capped, previous_milli - policy.step_limit_milli, previous_milli + policy.step_limit_milli)
    return Multipliers(demand, supply, raw, limited)
