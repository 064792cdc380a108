"""Whether a version of a model may leave training, and whether its shadow may go live. Pure; the control plane decides by it."""

import math
from collections.abc import Mapping, Sequence

from arterial.api.controlplane.v1 import specs_pb2

# Share of shadow answers that may fail, or be beyond what the service holds possible.
MAX_SHADOW_FAILURES = 0.01


def refusals(gates: Sequence[specs_pb2.ModelGate], metrics: Mapping[str, float], live: Mapping[str, float] | None) -> list[str]:
    """Why a version may not leave training, one line per broken gate; none if all hold.

    Args:
        gates: those of the Model; a metric that is not there or not finite breaks its gate.
        metrics: the version's.
        live: those of the live version; None, or without the metric, if there is nothing to compare with.
    """
    return [why for gate in gates for why in _broken(gate, metrics.get(gate.metric), (live or {}).get(gate.metric))]


def _broken(gate: specs_pb2.ModelGate, value: float | None, live: float | None) -> list[str]:
    if value is None or not math.isfinite(value):
        return [f"{gate.metric} was not measured"]
    found = []
    if gate.HasField("at_most") and value > gate.at_most:
        found.append(f"{gate.metric} is {value:.6g}, at most {gate.at_most:.6g} is allowed")
    if gate.HasField("at_least") and value < gate.at_least:
        found.append(f"{gate.metric} is {value:.6g}, at least {gate.at_least:.6g} is needed")
    if gate.HasField("max_ratio_to_live") and live is not None and value > live * gate.max_ratio_to_live:
        found.append(f"{gate.metric} is {value:.6g}, more than {gate.max_ratio_to_live:.6g} times the live version's {live:.6g}")
    return found


def shadow_refusal(answers: int, failures: int) -> str | None:
    """Why a shadow that has answered so often may not go live; None if it may."""
    if failures > answers * MAX_SHADOW_FAILURES:
        return f"{failures} of {answers} shadow answers failed, more than {MAX_SHADOW_FAILURES:.0%}"
    return None
