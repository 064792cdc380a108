"""What the merger of speeds knows of one partition, and what each partial makes of it: same log, same outputs."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.eta.v1alpha1.eta_partial_pb2 import EtaPartial
from chassis.streaming.cells import CellEmission
from chassis.streaming.cellstate import Arrays, CellForm, CellState, Told
from services.eta.speeds import FEATURE_SET_VERSION, MEASURES, speeds

CLOCK_TOPIC = "gps_pings_v1"
FORM = CellForm(specs_pb2.EtaPolicySpec, FEATURE_SET_VERSION, MEASURES, CLOCK_TOPIC)


@dataclass
class SpeedState:
    """Windows of one partition, and the speeds that were told."""

    cells: CellState[specs_pb2.EtaPolicySpec] = field(default_factory=lambda: CellState(FORM))
    # (ratio, speed, observations, tick); all but the tick are 0 where nothing is known.
    told: Told = field(default_factory=lambda: Told(np.zeros((0, 4), np.int64)))
    # Combiner's clock when speeds were last evaluated.
    evaluated_seconds: int = 0

    def merge(self, partial: EtaPartial) -> CellEmission:
        """Takes a partial; the state moves. Every `tick_seconds` of the combiner's clock speeds are evaluated: pings never stop.

        Raises:
            BadPartial: unknown feature set, columns of different length, or no policy yet. The state has not moved.
        """
        known_before = self.cells.windows.cells[: len(self.told.last)][self.told.last[:, 0] > 0]
        taken = self.cells.take(partial)
        if taken.fresh:
            self.told = Told(np.zeros((0, 4), np.int64))
        policy, now = self.cells.policy, partial.combined_at.seconds
        assert policy is not None
        if not taken.fresh and now - self.evaluated_seconds < policy.tick_seconds:
            return CellEmission(
                self.cells.tick_seconds, np.zeros((0, 2), np.int64), np.zeros((0, 3), np.int64), np.zeros((0, 2), np.int64), taken
            )
        self.evaluated_seconds = now
        cells, values, known = self._evaluate(policy)
        return CellEmission(self.cells.tick_seconds, cells, values, _without(known_before, known), taken)

    def _evaluate(self, policy: specs_pb2.EtaPolicySpec) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Cells to tell (n, 2), their values (n, 3), and all cells of which something is known (m, 2)."""
        windows = self.cells.windows
        found = speeds(self.cells.within(), policy)
        values = np.column_stack([found.ratio_milli, found.speed_mmps, found.observations])
        changed = self.told.changed(values, self.cells.tick_seconds) & found.known
        outcome = windows.cells[changed], values[changed], windows.cells[found.known]
        empty = np.asarray(~windows.counts.any(axis=(1, 2)), bool)
        if empty.any():
            windows.drop(empty)
            self.told = Told(self.told.last[~empty])
        return outcome

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole state as arrays, for a checkpoint."""
        return self.cells.arrays() | {"told": self.told.last, "evaluated": np.array(self.evaluated_seconds)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "SpeedState":
        """The state of a checkpoint. Raises KeyError or ValueError for arrays that are none."""
        return cls(CellState.from_arrays(FORM, arrays), Told(arrays["told"].astype(np.int64)), int(arrays["evaluated"]))


def _without(cells: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of `cells` that are not among `others`."""
    kept = {tuple(cell) for cell in others.tolist()}
    return np.array([cell for cell in cells.tolist() if tuple(cell) not in kept], np.int64).reshape(-1, 2)
