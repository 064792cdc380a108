"""Training of the radar model: point-in-time features by SQL over the lake, labels as they were known when the date ended.

Nothing is learned from what was not known then: a payment is taken only if its label had time to arrive (`label_delay_seconds`), and it
is fraud only if it was charged back by the end of the date. Validation takes the newest payments, fitting what came before them.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chassis.errors import ArterialError, Reason
from chassis.learning.artefact import Candidate
from chassis.learning.boosting import Settings, fit_classifier
from chassis.learning.checkpoints import Checkpoints
from chassis.learning.metrics import average_precision, card_precision
from chassis.learning.snapshot import TrainingData
from chassis.learning.task import Log, Task
from services.radar.features import FEATURES, ONE_MILLI
from services.radar.point_in_time import PAYMENTS, training_sql
from services.radar.policy import risk_policy
from services.radar.scoring import MODEL_FILE

# Share of the labelled span, the newest, that validation takes: of three weeks about four days.
VALIDATION_SHARE = 0.2
# Fewer of them, on either side of the split, and neither fitting nor a metric means anything.
LEAST_FRAUDS = 20
TOP_CARDS = 100
SETTINGS = Settings(rounds=200, depth=5, learning_rate=0.08, min_child_weight=5.0, column_share=0.6, row_share=0.8)


@dataclass(frozen=True)
class Labelled:
    """Payments in order of time: `features` (n, features), `labels`, `days` (since 1970) and `cards` (numbers of instruments), (n,)."""

    features: NDArray[np.float64]
    labels: NDArray[np.bool_]
    days: NDArray[np.int64]
    cards: NDArray[np.int64]

    def where(self, mask: NDArray[np.bool_]) -> "Labelled":
        """Those of a mask."""
        return Labelled(self.features[mask], self.labels[mask], self.days[mask], self.cards[mask])


def begin_of(day: date) -> datetime:
    """The moment that a date begins, UTC."""
    return datetime.combine(day, time(), UTC)


def end_of(day: date) -> datetime:
    """The moment that a date ends, UTC."""
    return begin_of(day + timedelta(days=1))


async def train(task: Task, log: Log) -> Candidate:
    """Trains a version; its metrics are those of a model that was fitted without the validation span.

    Raises:
        ArterialError: REFUSED if there are too few labelled frauds.
    """
    data, kept = TrainingData(task), Checkpoints(task.models, task.run_id, log)
    delay = risk_policy(task.desired).label_delay_seconds
    rows = await data.read(training_sql(FEATURES, begin_of(task.window(PAYMENTS)[0]), end_of(task.partition_date), delay))
    labelled = labelled_of(rows)
    older, newest = split(labelled)
    log(f"{len(older.labels)} payments to fit, {int(older.labels.sum())} of them fraud; {len(newest.labels)} to validate")
    for part in (older, newest):
        if part.labels.sum() < LEAST_FRAUDS:
            raise ArterialError(Reason.REFUSED, f"{int(part.labels.sum())} labelled frauds are too few, {LEAST_FRAUDS} are needed")
    metrics = measure(newest, fit_classifier(older.features, older.labels, SETTINGS, checkpoints=kept).predict(newest.features))
    log(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    model = fit_classifier(labelled.features, labelled.labels, SETTINGS, checkpoints=kept)
    parameters = {"feature_set_version": FEATURES.version, "label_delay_seconds": delay, "settings": asdict(SETTINGS)}
    return Candidate({MODEL_FILE: model.encoded()}, FEATURES.names, metrics, parameters, data.snapshots)


def labelled_of(rows: pa.Table) -> Labelled:
    """Rows of the training SQL, in order of time."""
    rows = rows.sort_by([("time_us", "ascending"), ("event", "ascending")])
    features = np.column_stack([rows[name].to_numpy() for name in FEATURES.names]) / ONE_MILLI
    days = rows["time_us"].to_numpy() // 86_400_000_000
    cards = np.unique(rows["card"].to_numpy(), return_inverse=True)[1]
    return Labelled(features, rows["fraud"].to_numpy() != 0, days, cards)


def split(labelled: Labelled) -> tuple[Labelled, Labelled]:
    """What is fitted, and the newest whole days, which are validated on."""
    if not len(labelled.days):
        return labelled, labelled
    first, last = int(labelled.days[0]), int(labelled.days[-1])
    cut = last + 1 - max(1, round((last + 1 - first) * VALIDATION_SHARE))
    return labelled.where(labelled.days < cut), labelled.where(labelled.days >= cut)


def measure(labelled: Labelled, scores: NDArray[np.float64]) -> dict[str, float]:
    """Metrics of scores."""
    top = card_precision(labelled.days, labelled.cards, labelled.labels, scores, TOP_CARDS)
    return {
        "average_precision": average_precision(labelled.labels, scores),
        "card_precision_100": top,
        "payments": float(len(scores)),
        "frauds": float(labelled.labels.sum()),
    }
