"""Travel times with intervals: what a model or the declared rule says, moved by what is live along the leg. Pure arithmetic on columns.

Reference seconds of a leg are distance * detour / reference speed. Without a model its median is the reference, with a log-normal spread
that is wide on purpose. Along the leg each point with a live travel-time ratio moves the logarithm of the answer towards that ratio:

    weight     = observations / (observations + min_observations) * exp(-(age + time ahead) / FADE_SECONDS)
    correction = mean over all points of weight * ln(live ratio / expected ratio),   expected ratio = median / reference seconds

So few pings, old pings and places that are reached late count less, and points of which nothing is known count for nothing. The first
factor is the weight of a mean of n observations in normal shrinkage (Efron and Morris 1975), with `min_observations` of prior strength.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from services.eta.legs import Legs, fractions

Floats = NDArray[np.float64]
# Ends of the 95, 80 and 50 % intervals around the median, ascending; a model answers these.
QUANTILES = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
MEDIAN = 3
# (coverage in per cent, index of its lower and upper end), narrowest first.
INTERVALS = ((50, 2, 4), (80, 1, 5), (95, 0, 6))
# Normal scores of QUANTILES.
_SCORES = np.array([-1.959964, -1.281552, -0.674490, 0.0, 0.674490, 1.281552, 1.959964])
# Spread of the rule's answers: 95 % lie within a factor of 2.7. Trips of one distance in one city vary by about half of that.
RULE_SIGMA = 0.5
# Traffic half an hour from now is only loosely tied to what is now.
FADE_SECONDS = 1800.0
# A weight below this moves nothing that anyone could notice.
MIN_WEIGHT = 0.01
# No leg takes less: answers stay positive, and their logarithms finite.
MIN_SECONDS = 1.0
# What the service holds possible, seconds: whatever lies beyond comes from a broken model.
POSSIBLE_SECONDS = (0.0, 7 * 86_400.0)


@dataclass(frozen=True)
class Live:
    """What is live at the points along legs: travel-time ratios (0: unknown) and observations, (n, points); age of all, seconds."""

    ratio_milli: NDArray[np.int64]
    observations: NDArray[np.int64]
    age_seconds: float


@dataclass(frozen=True)
class Answers:
    """Quantiles in seconds, (n, 7); ratios applied, (n,), 1000 for none; which rows a model answered, and into which live went, (n,)."""

    quantiles: Floats
    live_ratio_milli: NDArray[np.int64]
    of_model: NDArray[np.bool_]
    of_live: NDArray[np.bool_]


def reference_seconds(distance_m: Floats, policy: specs_pb2.EtaPolicySpec) -> Floats:
    """Travel times at the reference speed; shape (n,)."""
    return np.maximum(distance_m * policy.detour_milli / policy.reference_speed_mmps, MIN_SECONDS)


def answers(legs: Legs, predicted: Floats | None, live: Live, *, policy: specs_pb2.EtaPolicySpec, now: float) -> Answers:
    """Answers for legs from a model's quantiles (n, 7) in seconds, if there are any, and what is live; `now` in seconds since 1970."""
    reference = reference_seconds(legs.distance_m(), policy)
    quantiles = reference[:, None] * np.exp(RULE_SIGMA * _SCORES)
    of_model = np.zeros(len(legs), bool)
    if predicted is not None:
        # What a model says beyond the possible is no answer: the rule stands in for that row.
        possible = np.isfinite(predicted) & (predicted > POSSIBLE_SECONDS[0]) & (predicted <= POSSIBLE_SECONDS[1])
        of_model = np.asarray(possible.all(axis=1), bool)
        quantiles = np.where(of_model[:, None], np.sort(predicted, axis=1), quantiles)
    weights = _weights(legs, quantiles[:, MEDIAN], live, policy, now)
    of_live = weights.mean(axis=1) >= MIN_WEIGHT
    logs = np.log(np.where(live.ratio_milli > 0, live.ratio_milli, 1000) / 1000)
    expected = np.log(quantiles[:, MEDIAN] / reference)
    correction = np.where(of_live, (weights * (logs - expected[:, None])).mean(axis=1), 0.0)
    applied = np.where(of_live, (weights * logs).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12), 0.0)
    moved = quantiles * np.exp(correction)[:, None]
    return Answers(moved, np.rint(1000 * np.exp(applied)).astype(np.int64), of_model, of_live)


def _weights(legs: Legs, median: Floats, live: Live, policy: specs_pb2.EtaPolicySpec, now: float) -> Floats:
    """Weight of each point; shape (n, points)."""
    certain = live.observations / (live.observations + policy.min_observations)
    ahead = np.maximum(legs.departures - now, 0.0)[:, None] + median[:, None] * fractions()[None, :]
    usable = (live.ratio_milli > 0) & (np.abs(legs.departures - now) <= policy.max_age_seconds)[:, None]
    return np.asarray(np.where(usable, certain * np.exp(-(live.age_seconds + ahead) / FADE_SECONDS), 0.0), np.float64)
