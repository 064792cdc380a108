"""What radar reads and makes, derived from what it runs: the columns of its partials, its feature set, its training SQL."""

from datetime import UTC, datetime, timedelta

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.radar.v1alpha1.risk_decision_pb2 import RiskDecision
from chassis.lineage import ColumnInput, JobDefinition, Output, from_sql, identity
from chassis.lineage.definition import AGGREGATION, IDENTITY, TRANSFORMATION
from chassis.wire import Schemas
from services.radar.features import FEATURES, Aggregate, Entity, Feature
from services.radar.partials import COLUMNS
from services.radar.point_in_time import PAYMENTS, training_sql

SOURCE, PARTIALS, VELOCITY, DECISIONS = (
    "kafka/payment_events_v1",
    "kafka/radar_partials_v1",
    "feature/payment-velocity",
    "kafka/radar_decisions_v1",
)
MODEL = "model/radar"
# The partial's column that names an entity.
_OF_ENTITY = {
    Entity.ACCOUNT: COLUMNS["account_id"],
    Entity.INSTRUMENT: COLUMNS["instrument_fingerprint"],
    Entity.DEVICE: COLUMNS["device_fingerprint"],
}
# Columns of a decision that are the payment's own.
_COPIED = {
    "payment_event_id": "event_ids",
    "event_time": "event_time_us",
    "city_id": "city_ids",
    "payment_id": "payment_ids",
    "account_id": "account_ids",
}
# Columns of a decision that follow from the features.
_DECIDED = ("action", "score_micro", "reasons", "features_milli")


def combine_job() -> JobDefinition:
    """Role `combine`."""
    types = {field.name: str(field.type) for field in Schemas().builtin("arterial.api.radar.v1alpha1.RadarPartial").arrow}
    columns = identity(SOURCE, {target: source for source, target in COLUMNS.items()})
    rows = (ColumnInput(SOURCE, "stage", "INDIRECT/FILTER"),)
    return JobDefinition("radar.combine", (SOURCE,), (Output(PARTIALS, columns, {name: types[name] for name in columns}, rows),))


def stream_job() -> JobDefinition:
    """Role `stream`: velocities, and the decisions made from them and the model."""
    features = {feature.name: _inputs(feature) for feature in FEATURES.features}
    velocity = Output(VELOCITY, features, dict.fromkeys(features, "int64"))
    of_features = [ColumnInput(VELOCITY, name) for name in FEATURES.names]
    decided = [*of_features, *(ColumnInput(MODEL, name, "INDIRECT/CONDITIONAL") for name in FEATURES.names)]
    columns = {name: (ColumnInput(PARTIALS, source, IDENTITY),) for name, source in _COPIED.items()} | dict.fromkeys(_DECIDED, decided)
    types = {field.name: str(field.type) for field in Schemas().builtin(RiskDecision.DESCRIPTOR.full_name).arrow}
    decisions = Output(DECISIONS, columns, {name: types[name] for name in columns}, (ColumnInput(PARTIALS, "stages", "INDIRECT/FILTER"),))
    return JobDefinition("radar.stream", (PARTIALS, MODEL), (velocity, decisions))


def train_job(policy: specs_pb2.RiskPolicySpec, days: int) -> JobDefinition:
    """Training, as its SQL reads the lake; the columns of the model are its features and its label. Dates are those of a day long ago."""
    end = datetime(2026, 1, 29, tzinfo=UTC)
    sql = training_sql(FEATURES, end - timedelta(days=days), end, policy.label_delay_seconds)
    payments = {field.name: str(field.type) for field in Schemas().builtin("arterial.api.events.v1.PaymentEvent").arrow}
    return from_sql("radar.train", sql, MODEL, {PAYMENTS: payments})


def _inputs(feature: Feature) -> tuple[ColumnInput, ...]:
    """Columns of the partial that a feature is made of."""
    amount = ColumnInput(PARTIALS, COLUMNS["amount_amount_minor"], AGGREGATION)
    if feature.aggregate is Aggregate.AMOUNT:
        return (ColumnInput(PARTIALS, COLUMNS["amount_amount_minor"], TRANSFORMATION),)
    found = [ColumnInput(PARTIALS, COLUMNS[name], AGGREGATION) for name in ("event_time", "stage")]
    found.append(ColumnInput(PARTIALS, _OF_ENTITY[feature.entity], "INDIRECT/GROUP_BY"))
    if feature.aggregate in (Aggregate.SUM, Aggregate.RATIO_TO_MEAN):
        found.append(amount)
    if feature.of is not None:
        found.append(ColumnInput(PARTIALS, _OF_ENTITY[feature.of], AGGREGATION))
    return tuple(found)
