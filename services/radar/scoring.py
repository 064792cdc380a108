"""The model at work: probabilities and reasons from the live version, a shadow version compared with it."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chassis.learning.artefact import Artefact
from chassis.learning.serving import ServedModel
from services.radar.decisions import MAX_REASONS, MILLION, Scored
from services.radar.features import FEATURES, ONE_MILLI, strongest

if TYPE_CHECKING:
    from chassis.learning.boosting import Boosted

MODEL = "radar"
MODEL_FILE = "model.ubj"
# Probabilities; a shadow's answers beyond them are failures.
POSSIBLE = (0.0, 1.0)


@dataclass(frozen=True)
class RiskModel:
    """A version that scores payments. Computes: call it in a thread."""

    boosted: "Boosted"

    def probabilities(self, features_milli: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability of fraud, shape (n, features) to (n,)."""
        return self.boosted.predict(features_milli / ONE_MILLI)

    def reasons(self, features_milli: NDArray[np.int64]) -> list[tuple[str, ...]]:
        """Codes of what raised each score most, strongest first; shape (n, features)."""
        contributions = self.boosted.contributions(features_milli / ONE_MILLI)
        return [tuple(strongest(FEATURES, row, MAX_REASONS)) for row in contributions.tolist()]


def build(artefact: Artefact) -> RiskModel:
    """The model of an artefact.

    Raises:
        ValueError: it was trained on other features than this program computes.
    """
    from chassis.learning.boosting import Boosted

    if artefact.candidate.features != FEATURES.names or artefact.parameters["feature_set_version"] != FEATURES.version:
        raise ValueError(f"version {artefact.version} is of another feature set than {FEATURES.version}")
    return RiskModel(Boosted.decoded(artefact.files[MODEL_FILE]))


class ModelScorer:
    """The `Scorer` of the served model."""

    def __init__(self, served: ServedModel[RiskModel]) -> None:
        self._served = served

    async def score(self, features_milli: NDArray[np.int64], explained_from_micro: int) -> list[Scored] | None:
        """Scores of payments, with reasons from a score on; None while no version is loaded. Shape (n, features)."""
        live = self._served.live
        if live is None:
            return None
        answers, scored = await asyncio.to_thread(_score, live.model, live.version, features_milli, explained_from_micro)
        self._served.compare(answers, lambda shadow: shadow.probabilities(features_milli))
        return scored


def _score(
    model: RiskModel, version: str, features_milli: NDArray[np.int64], explained_from_micro: int
) -> tuple[NDArray[np.float64], list[Scored]]:
    answers = model.probabilities(features_milli)
    micro = np.rint(answers * MILLION).astype(np.int64)
    explained = np.flatnonzero(micro >= explained_from_micro)
    reasons = dict(zip(explained.tolist(), model.reasons(features_milli[explained]), strict=True)) if len(explained) else {}
    return answers, [Scored(score, reasons.get(place, ()), version) for place, score in enumerate(micro.tolist())]
