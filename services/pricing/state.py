"""What the merger of surge knows of one partition, and what each partial makes of it: same log, same outputs."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from chassis.streaming.cells import CellEmission
from chassis.streaming.cellstate import Arrays, CellForm, CellState, Taken, Told
from services.pricing.features import FEATURE_SET_VERSION, MEASURES
from services.pricing.surge import ONE_MILLI, multipliers

DEMAND_TOPIC = "marketplace_events_v1"
# What its field holds: a raw multiplier is a ratio without a bound.
MAX_RAW_MILLI = (1 << 31) - 1
FORM = CellForm(specs_pb2.PricingPolicySpec, FEATURE_SET_VERSION, MEASURES, DEMAND_TOPIC)


@dataclass
class SurgeState:
    """Windows and multipliers of one partition."""

    cells: CellState[specs_pb2.PricingPolicySpec] = field(default_factory=lambda: CellState(FORM))
    # Multipliers at the last tick, from which the step limit counts, and the latest ones; shape (n,) each.
    base: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    previous: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    # (multiplier, demand, supply, tick).
    told: Told = field(default_factory=lambda: Told(np.zeros((0, 4), np.int64)))

    def merge(self, partial: PricingPartial) -> CellEmission:
        """Takes a partial; the state moves, and what changed is returned.

        Within one tick all multipliers move from the tick's base, so the step limit holds. Last multipliers outlive a change of policy.

        Raises:
            BadPartial: unknown feature set, columns of different length, or no policy yet. The state has not moved.
        """
        taken = self.cells.take(partial)
        if taken.fresh:
            self.base = self.previous = np.zeros(0, np.int64)
            self.told = Told(np.zeros((0, 4), np.int64))
        self._grow(len(self.cells.windows.cells) - len(self.previous))
        if taken.ticked:
            self.base = self.previous
        return self._evaluate(taken)

    def _evaluate(self, taken: Taken) -> CellEmission:
        policy, windows, tick = self.cells.policy, self.cells.windows, self.cells.tick_seconds
        assert policy is not None
        found = multipliers(self.cells.within(), self.base, policy)
        self.previous = found.multiplier_milli
        changed = self.told.changed(np.column_stack([found.multiplier_milli, found.demand_milli, found.supply_milli]), tick)
        gone = (found.multiplier_milli == ONE_MILLI) & ~windows.counts.any(axis=(1, 2))
        values = np.column_stack(
            [found.multiplier_milli, np.minimum(found.raw_milli, MAX_RAW_MILLI), found.demand_milli, found.supply_milli]
        )
        emission = CellEmission(tick, windows.cells[changed], values[changed], windows.cells[gone], taken)
        if gone.any():
            windows.drop(gone)
            self.base, self.previous, self.told = self.base[~gone], self.previous[~gone], Told(self.told.last[~gone])
        return emission

    def _grow(self, fresh: int) -> None:
        """New cells begin without surge."""
        ones = np.full(fresh, ONE_MILLI, np.int64)
        self.base, self.previous = np.concatenate([self.base, ones]), np.concatenate([self.previous, ones])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole state as arrays, for a checkpoint."""
        return self.cells.arrays() | {"base": self.base, "previous": self.previous, "told": self.told.last}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "SurgeState":
        """The state of a checkpoint. Raises KeyError or ValueError for arrays that are none."""
        base, previous, told = (arrays[name].astype(np.int64) for name in ("base", "previous", "told"))
        return cls(CellState.from_arrays(FORM, arrays), base, previous, Told(told))
