"""What the merger of speeds knows of one partition, and what each partial makes of it: same log, same outputs."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.eta.v1alpha1.eta_partial_pb2 import EtaPartial
from chassis.streaming.cellstate import Arrays, CellForm, CellState, Taken, Told
from services.eta.speeds import FEATURE_SET_VERSION, MEASURES, speeds

CLOCK_TOPIC = "gps_pings_v1"
FORM = CellForm(specs_pb2.EtaPolicySpec, FEATURE_SET_VERSION, MEASURES, CLOCK_TOPIC)
NO_CELLS = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class Emission:
    """What a partial led to: changed cells (n, 2: city, cell), their (ratio, speed, observations) (n, 3), and cells that tell nothing more."""

    tick_seconds: int
    cells: NDArray[np.int64]
    values: NDArray[np.int64]
    gone: NDArray[np.int64]
    taken: Taken


@dataclass
class SpeedState:
    """Windows of one partition, and the speeds that were told."""

    cells: CellState[specs_pb2.EtaPolicySpec] = field(default_factory=lambda: CellState(FORM))
    # (ratio, speed, observations, tick); all but the tick are 0 where nothing is known.
    told: Told = field(default_factory=lambda: Told(np.zeros((0, 4), np.int64)))

    def merge(self, partial: EtaPartial) -> Emission:
        """Takes a partial; the state moves, and at a tick speeds are evaluated: pings come all the time, readers need a value every few seconds.

        Raises:
            BadPartial: unknown feature set, columns of different length, or no policy yet. The state has not moved.
        """
        before = self.cells.windows.cells[: len(self.told.last)][self.told.last[:, 0] > 0]
        taken = self.cells.take(partial)
        if taken.fresh:
            self.told = Told(np.zeros((0, 4), np.int64))
            return Emission(self.cells.tick_seconds, NO_CELLS, np.zeros((0, 3), np.int64), before, taken)
        if not taken.ticked:
            return Emission(self.cells.tick_seconds, NO_CELLS, np.zeros((0, 3), np.int64), NO_CELLS, taken)
        return self._evaluate(taken)

    def _evaluate(self, taken: Taken) -> Emission:
        policy, windows, tick = self.cells.policy, self.cells.windows, self.cells.tick_seconds
        assert policy is not None
        found = speeds(self.cells.within(), policy)
        values = np.column_stack([found.ratio_milli, found.speed_mmps, found.observations])
        was_known = np.zeros(len(values), bool)
        was_known[: len(self.told.last)] = self.told.last[:, 0] > 0
        changed = self.told.changed(values, tick) & found.known
        emission = Emission(tick, windows.cells[changed], values[changed], windows.cells[was_known & ~found.known], taken)
        empty = ~windows.counts.any(axis=(1, 2))
        if empty.any():
            windows.drop(empty)
            self.told = Told(self.told.last[~empty])
        return emission

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole state as arrays, for a checkpoint."""
        return self.cells.arrays() | {"told": self.told.last}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "SpeedState":
        """The state of a checkpoint. Raises KeyError or ValueError for arrays that are none."""
        return cls(CellState.from_arrays(FORM, arrays), Told(arrays["told"].astype(np.int64)))
