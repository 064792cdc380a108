"""What the merger of radar knows of one partition: policy and watermark. Velocities and decisions are in stores, by event id."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.radar.v1alpha1.radar_partial_pb2 import RadarPartial
from chassis.streaming.checkpoint import Arrays
from chassis.streaming.partials import BadPartial, policy_in_force
from services.radar.features import FEATURES, Payment
from services.radar.payments import of_partial


@dataclass(frozen=True)
class Emission:
    """What a partial led to: its payments, the policy that they are judged by, and the watermark after it, microseconds."""

    payments: list[Payment]
    policy: specs_pb2.RiskPolicySpec
    watermark_us: int


@dataclass
class RiskState:
    """Policy and watermark of one partition."""

    policy: specs_pb2.RiskPolicySpec | None = None
    policy_hash: str = ""
    watermark_us: int = 0

    def merge(self, partial: RadarPartial) -> Emission:
        """Takes a partial. Raises BadPartial: another feature set, an unknown policy, columns of different lengths."""
        known = self.policy if self.policy_hash == partial.policy_hash else None
        policy = policy_in_force(partial, specs_pb2.RiskPolicySpec, known, FEATURES.version)
        try:
            payments = of_partial(partial)
        except ValueError as error:
            raise BadPartial(f"columns differ in length: {error}") from error
        self.policy, self.policy_hash = policy, partial.policy_hash
        self.watermark_us = max(self.watermark_us, _watermark(partial, policy))
        return Emission(payments, policy, self.watermark_us)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole state, for a checkpoint."""
        policy = b"" if self.policy is None else self.policy.SerializeToString(deterministic=True)
        return {
            "policy": np.frombuffer(policy, np.uint8),
            "policy_hash": np.frombuffer(self.policy_hash.encode(), np.uint8),
            "watermark_us": np.array([self.watermark_us], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "RiskState":
        """The state of a checkpoint."""
        name = arrays["policy_hash"].tobytes().decode()
        policy = specs_pb2.RiskPolicySpec.FromString(arrays["policy"].tobytes()) if name else None
        return cls(policy, name, int(arrays["watermark_us"][0]))


def _watermark(partial: RadarPartial, policy: specs_pb2.RiskPolicySpec) -> int:
    """Up to when the payments are known: the largest event time; of a quiet source, the combiner's clock less idle_seconds."""
    quiet = partial.combined_at.ToMicroseconds() - policy.idle_seconds * 1_000_000
    times = [quiet if source.idle else source.max_event_time.ToMicroseconds() for source in partial.sources]
    return min(times, default=0)
