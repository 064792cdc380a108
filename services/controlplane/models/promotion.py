"""Which version of a model is live and which in shadow: gates, shadow comparison, pin, rollback. Pure.

A version's *standing* is what was found out about it: SHADOW (its gates passed, its comparison is not over), PASSED, or REJECTED.
Live is the pinned version, else the newest that passed. So a rejected one never replaces the live one, and a rollback is the rejection of
the live one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from arterial.api.controlplane.v1 import specs_pb2
from chassis.errors import ArterialError, Reason

# Share of its shadow answers that a version may fail to give: beyond it, its live answers would be missed too often.
MAX_SHADOW_FAILURES = 0.01


class Standing(StrEnum):
    """What was found out about a version."""

    SHADOW = "SHADOW"
    PASSED = "PASSED"
    REJECTED = "REJECTED"


class Stage(StrEnum):
    """What a version does."""

    SHADOW = "SHADOW"
    LIVE = "LIVE"
    RETIRED = "RETIRED"
    REJECTED = "REJECTED"


@dataclass(frozen=True)
class Version:
    """A version as far as promotion is concerned; versions sort by time of training."""

    version: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    standing: Standing = Standing.SHADOW
    reasons: tuple[str, ...] = ()
    # What serving processes saw of it in shadow: answers, those that failed, sum of the absolute differences to the live answers.
    answers: int = 0
    failures: int = 0
    difference_sum: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """What a serving process saw of a version in shadow since its last report."""

    answers: int
    failures: int
    mean_difference: float


def live_of(spec: specs_pb2.ModelSpec, versions: Sequence[Version]) -> Version | None:
    """The version that answers; None if there is none yet."""
    pinned = next((version for version in versions if version.version == spec.pinned_version), None)
    passed = [version for version in versions if version.standing is Standing.PASSED]
    return pinned or max(passed, key=lambda version: version.version, default=None)


def shadow_of(spec: specs_pb2.ModelSpec, versions: Sequence[Version]) -> Version | None:
    """The version that is compared with the live one; None if there is none."""
    live = live_of(spec, versions)
    passed = max((version.version for version in versions if version.standing is Standing.PASSED), default="")
    candidates = [version for version in versions if version.standing is Standing.SHADOW and version != live and version.version > passed]
    return max(candidates, key=lambda version: version.version, default=None)


def stage_of(version: Version, live: Version | None) -> Stage:
    """What the version does, if `live` is what answers."""
    if live is not None and version.version == live.version:
        return Stage.LIVE
    return Stage.RETIRED if version.standing is Standing.PASSED else Stage(version.standing)


def gate_failures(spec: specs_pb2.ModelSpec, metrics: Mapping[str, float], live: Version | None) -> list[str]:
    """Why the gates refuse these metrics; empty if they do not. A metric that is missing or not a finite number fails its gate."""
    return [reason for gate in spec.gates for reason in _failures(gate, metrics.get(gate.metric), live)]


def registered(spec: specs_pb2.ModelSpec, versions: Sequence[Version], new: Version) -> list[Version]:
    """The versions with a new one, judged. It replaces whichever was in shadow; one that is older than what is known is refused."""
    refused = gate_failures(spec, new.metrics, live_of(spec, versions))
    later = [version.version for version in versions if version.standing is not Standing.REJECTED and version.version > new.version]
    if later:
        refused.append(f"{max(later)} is newer")
    if refused:
        return [*versions, replace(new, standing=Standing.REJECTED, reasons=tuple(refused))]
    return settled(spec, [*versions, replace(new, standing=Standing.SHADOW, reasons=())])


def compared(spec: specs_pb2.ModelSpec, versions: Sequence[Version], name: str, seen: Comparison) -> list[Version]:
    """The versions after a report on one in shadow. Raises REFUSED if it is not in shadow."""
    shadow = shadow_of(spec, versions)
    if shadow is None or shadow.version != name:
        raise ArterialError(Reason.REFUSED, f"{name} is not in shadow")
    counted = replace(
        shadow,
        answers=shadow.answers + seen.answers,
        failures=shadow.failures + seen.failures,
        difference_sum=shadow.difference_sum + seen.mean_difference * seen.answers,
    )
    return settled(spec, [counted if version.version == name else version for version in versions])


def settled(spec: specs_pb2.ModelSpec, versions: Sequence[Version]) -> list[Version]:
    """The versions after the one in shadow was judged; judging again changes nothing. While a version is pinned none is promoted."""
    shadow, live = shadow_of(spec, versions), live_of(spec, versions)
    return [_settled(spec, version, shadow, live) for version in versions]


def _settled(spec: specs_pb2.ModelSpec, version: Version, shadow: Version | None, live: Version | None) -> Version:
    if version.standing is not Standing.SHADOW or version.version == spec.pinned_version:
        return version
    if version != shadow:
        why = "a newer version took its place"
        return replace(version, standing=Standing.REJECTED, reasons=(*version.reasons, why))
    asked = version.answers + version.failures
    if version.failures > MAX_SHADOW_FAILURES * max(asked, spec.shadow_answers):
        why = f"in shadow {version.failures} of {asked} answers failed, more than {MAX_SHADOW_FAILURES:.0%}"
        return replace(version, standing=Standing.REJECTED, reasons=(*version.reasons, why))
    if not spec.pinned_version and (live is None or version.answers >= spec.shadow_answers):
        return replace(version, standing=Standing.PASSED, reasons=(*version.reasons, _passed(version, live)))
    return version


def rolled_back(spec: specs_pb2.ModelSpec, versions: Sequence[Version], reason: str) -> list[Version]:
    """The versions without the live one: the one before it answers, and what was in shadow is compared anew, with that.

    Raises:
        ArterialError: REFUSED if the live version is pinned, or there is none before it.
    """
    live = live_of(spec, versions)
    if spec.pinned_version:
        raise ArterialError(Reason.REFUSED, f"version {spec.pinned_version} is pinned: change spec.pinnedVersion of the Model")
    before = [version for version in versions if version.standing is Standing.PASSED and version != live]
    if live is None or not before:
        raise ArterialError(Reason.REFUSED, "no version was live before the current one")
    return [_anew(version, live, reason) for version in versions]


def _anew(version: Version, live: Version, reason: str) -> Version:
    if version.version == live.version:
        return replace(version, standing=Standing.REJECTED, reasons=(*version.reasons, f"rolled back: {reason}"))
    if version.standing is Standing.SHADOW:
        return replace(version, answers=0, failures=0, difference_sum=0.0)
    return version


def _passed(shadow: Version, live: Version | None) -> str:
    if live is None:
        return "live at once: there was no version before it"
    if not shadow.answers:
        return "live at once: the model wants no shadow"
    mean = shadow.difference_sum / shadow.answers
    return f"in shadow of {live.version}: {shadow.answers} answers, {shadow.failures} failed, mean difference {mean:.6g}"


def _failures(gate: specs_pb2.ModelGate, value: float | None, live: Version | None) -> list[str]:
    if value is None:
        return [f"{gate.metric} is missing"]
    if not math.isfinite(value):
        return [f"{gate.metric} is {value}, not a number that can be judged"]
    found = []
    if gate.HasField("at_most") and not value <= gate.at_most:
        found.append(f"{gate.metric} is {value:.6g}, more than {gate.at_most:.6g}")
    if gate.HasField("at_least") and not value >= gate.at_least:
        found.append(f"{gate.metric} is {value:.6g}, less than {gate.at_least:.6g}")
    held = live.metrics.get(gate.metric) if live is not None else None
    # A live version that lacks the metric cannot be compared with: else a new gate would refuse every version for ever.
    if gate.HasField("max_ratio_to_live") and held is not None and math.isfinite(held) and not value <= gate.max_ratio_to_live * held:
        found.append(f"{gate.metric} is {value:.6g}, more than {gate.max_ratio_to_live:.6g} times that of the live version ({held:.6g})")
    return found
