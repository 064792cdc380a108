"""The feature set as ClickHouse SQL: the same values for every past payment event as were, or would have been, computed when it came.

For one entity after the other a ROWS window over (event_time, event_id) holds its newest events in arrays, one per column, the event
itself last; every feature is an expression over these arrays. `tests/radar` compares the values with the online ones.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from services.radar.features import (
    AUTHORISED,
    CHARGED_BACK,
    HISTORY,
    LARGEST_AMOUNT,
    LEAST_AMOUNT,
    ONE_MILLI,
    Aggregate,
    Entity,
    Feature,
    FeatureSet,
)

# Columns of a row of `events` by the name that a history has them under.
_COLUMN_OF = {
    "time": "time_us",
    "stage": "stage",
    "amount": "amount_minor",
    "account": "account",
    "instrument": "instrument",
    "device": "device",
}
_TEXT_OF = {Entity.ACCOUNT: "account_id", Entity.INSTRUMENT: "instrument_fingerprint", Entity.DEVICE: "device_fingerprint"}
# Columns of `events` that every step hands on.
_BASE = ("event_id", "payment_id", "time_us", "stage", "amount_minor", *Entity)
PAYMENTS = "lake/curated/payment_events_v1"
# Arrays of up to 256 values per row: small blocks bound the memory of the engine, and they must not be carried through the next sort.
SETTINGS = "max_block_size = 8192, max_threads = 2, query_plan_execute_functions_after_sorting = 0"


def features_sql(feature_set: FeatureSet, source: str, where: str = "1", extra: Iterable[str] = ()) -> str:
    """A query of every AUTHORISED event: `event` (hexadecimal), `payment_id`, `time_us`, `extra` expressions, an Int64 column per feature.

    `source` is a table expression with the columns of the curated payment events; `where` holds for the events that are returned, not
    for those that the features look at.
    """
    stages = ", ".join(str(stage) for stage in sorted(feature_set.stages))
    steps, done, previous = list[str](), list[str](), "events"
    for entity in Entity:
        features = [feature for feature in feature_set.features if feature.entity is entity]
        if features:
            steps.append(_step(entity, features, previous, done))
            done += [feature.name for feature in features]
            previous = f"{entity}_features"
    selected = ", ".join(["hex(event_id) AS event", "payment_id", "time_us", *extra, *feature_set.names])
    return f"""WITH events AS (
  SELECT
    event_id,
    ifNull(payment_id, '') AS payment_id,
    toUnixTimestamp64Micro(event_time) AS time_us,
    toInt64(ifNull(stage, 0)) AS stage,
    greatest({LEAST_AMOUNT}, least({LARGEST_AMOUNT}, ifNull(amount_amount_minor, 0))) AS amount_minor,
    {", ".join(f"{_digest(_TEXT_OF[entity])} AS {entity}" for entity in Entity)}
  FROM {source}
  WHERE ifNull(stage, 0) IN ({stages})
){"".join(steps)}
SELECT {selected}
FROM {previous}
WHERE stage = {AUTHORISED} AND ({where})
SETTINGS {SETTINGS}"""


def _step(entity: Entity, features: Sequence[Feature], previous: str, done: Sequence[str]) -> str:
    """Histories of one entity, and its features, after which the arrays are dropped: sorting for the next entity moves numbers only.

    A frame that only grows is aggregated step by step; one whose start moves is aggregated anew for every row, in memory that the engine
    gives back at the end only. groupArrayLast keeps the last so many in a ring, which is turned so that the oldest stands first.
    """
    kept = ", ".join([*_BASE, *done])
    turned = f"if(row_number() OVER of_{entity} > {HISTORY}, row_number() OVER of_{entity} % {HISTORY}, 0)"
    arrays = ",\n    ".join(
        f"arrayRotateLeft(groupArrayLast({HISTORY})({_COLUMN_OF[name]}) OVER of_{entity}, {turned}) AS {entity}_{name}s"
        for name in _needed(features)
    )
    expressions = ",\n    ".join(f"{_expression(feature)} AS {feature.name}" for feature in features)
    return f""",
{entity}_histories AS (
  SELECT {kept},
    {arrays}
  FROM {previous}
  WINDOW of_{entity} AS ({_frame(entity)})
),
{entity}_features AS (
  SELECT {kept},
    {expressions}
  FROM {entity}_histories
)"""


def training_sql(feature_set: FeatureSet, first: datetime, end: datetime, label_delay_seconds: int) -> str:
    """Labelled payments: features as they were at each payment, `card` (its instrument) and `fraud` (1 if charged back by `end`).

    Taken are payments whose windows lie within the data, which begin at `first`, and whose label had time to arrive before `end`.
    """
    warm = _micros(first) + feature_set.longest_us
    settled = _micros(end - timedelta(seconds=label_delay_seconds))
    charged_back = (
        f"SELECT payment_id FROM `{PAYMENTS}` WHERE stage = {CHARGED_BACK} AND toUnixTimestamp64Micro(event_time) < {_micros(end)}"
    )
    extra = ("instrument AS card", f"payment_id IN ({charged_back}) AS fraud")
    return features_sql(feature_set, f"`{PAYMENTS}`", f"time_us >= {warm} AND time_us < {settled}", extra)


def recent_sql(feature_set: FeatureSet, now: datetime, *, only_files: bool) -> str:
    """Events within the longest window before `now`, in order, as `Payment` has them, the id hexadecimal; those of files only, if asked."""
    stages = ", ".join(str(stage) for stage in sorted(feature_set.stages))
    return f"""SELECT
  hex(event_id), toUnixTimestamp64Micro(event_time) AS time_us, toInt64(ifNull(stage, 0)), ifNull(amount_amount_minor, 0),
  ifNull(account_id, ''), ifNull(instrument_fingerprint, ''), ifNull(device_fingerprint, ''), ifNull(payment_id, ''), ifNull(city_id, 0)
FROM `{PAYMENTS}`
WHERE ifNull(stage, 0) IN ({stages}) AND time_us > {_micros(now) - feature_set.longest_us} AND time_us <= {_micros(now)}
  AND {"startsWith(_topic, 'file:')" if only_files else "1"}
ORDER BY time_us, event_id"""


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def _digest(column: str) -> str:
    return f"if(ifNull({column}, '') = '', 0, sipHash64({column}))"


def _frame(entity: Entity) -> str:
    """Events without the entity have nothing in common: each is alone."""
    return (
        f"PARTITION BY {entity}, if({entity} = 0, event_id, '') ORDER BY time_us, event_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
    )


def _needed(features: Iterable[Feature]) -> list[str]:
    """The columns whose arrays the features of one entity read."""
    found: dict[str, None] = {}
    for feature in features:
        if feature.aggregate is Aggregate.AMOUNT:
            continue
        found.update(dict.fromkeys(("time", "stage")))
        if feature.aggregate in (Aggregate.SUM, Aggregate.RATIO_TO_MEAN):
            found["amount"] = None
        if feature.of is not None:
            found[feature.of.value] = None
    return list(found)


def _expression(feature: Feature) -> str:
    if feature.aggregate is Aggregate.AMOUNT:
        return f"toInt64(amount_minor * {ONE_MILLI})"
    return f"toInt64(if({feature.entity} = 0, {feature.absent_milli}, {_AGGREGATES[feature.aggregate](feature)}))"


def _counts(feature: Feature) -> str:
    """Whether an event counts, of the lambda arguments t (time) and s (stage)."""
    return f"t > time_us - {feature.window_us} AND s = {feature.stage}"


def _pair(feature: Feature) -> str:
    return f"{feature.entity}_times, {feature.entity}_stages"


def _earlier(feature: Feature, name: str) -> str:
    return f"arrayPopBack({feature.entity}_{name}s)"


def _count(feature: Feature) -> str:
    return f"{ONE_MILLI} * arrayCount((t, s) -> {_counts(feature)}, {_pair(feature)})"


def _sum(feature: Feature) -> str:
    amounts = f"arrayMap((t, s, a) -> if({_counts(feature)}, a, 0), {_pair(feature)}, {feature.entity}_amounts)"
    return f"{ONE_MILLI} * arraySum({amounts})"


def _distinct(feature: Feature) -> str:
    values = f"arrayFilter((v, t, s) -> v != 0 AND {_counts(feature)}, {feature.entity}_{feature.of}s, {_pair(feature)})"
    return f"{ONE_MILLI} * arrayUniq({values})"


def _seconds_since(feature: Feature) -> str:
    """The window reaches back at most by itself, so that an earlier event is always nearer than none."""
    earlier = f"arrayMap((t, s) -> if({_counts(feature)}, t, time_us - {feature.window_us}), {_earlier_pair(feature)})"
    return f"intDiv(time_us - arrayMax(arrayPushBack({earlier}, time_us - {feature.window_us})), {ONE_MILLI})"


def _seconds_since_first(feature: Feature) -> str:
    earlier = f"arrayMap((t, s) -> if({_counts(feature)}, t, time_us), {_earlier_pair(feature)})"
    return f"intDiv(time_us - arrayMin(arrayPushBack({earlier}, time_us)), {ONE_MILLI})"


def _is_new(feature: Feature) -> str:
    known = f"arrayFilter((v, t, s) -> {_counts(feature)}, {_earlier(feature, str(feature.of))}, {_earlier_pair(feature)})"
    return f"if({feature.of} != 0 AND notEmpty({known}) AND NOT has({known}, {feature.of}), {ONE_MILLI}, 0)"


def _ratio_to_mean(feature: Feature) -> str:
    total = f"arraySum(arrayMap((t, s, a) -> if({_counts(feature)}, a, 0), {_earlier_pair(feature)}, {_earlier(feature, 'amount')}))"
    count = f"arrayCount((t, s) -> {_counts(feature)}, {_earlier_pair(feature)})"
    return f"if({total} = 0, {ONE_MILLI}, intDiv(amount_minor * {ONE_MILLI} * toInt64({count}), greatest({total}, 1)))"


def _earlier_pair(feature: Feature) -> str:
    return f"{_earlier(feature, 'time')}, {_earlier(feature, 'stage')}"


_AGGREGATES: dict[Aggregate, Callable[[Feature], str]] = {
    Aggregate.COUNT: _count,
    Aggregate.SUM: _sum,
    Aggregate.DISTINCT: _distinct,
    Aggregate.SECONDS_SINCE: _seconds_since,
    Aggregate.SECONDS_SINCE_FIRST: _seconds_since_first,
    Aggregate.IS_NEW: _is_new,
    Aggregate.RATIO_TO_MEAN: _ratio_to_mean,
}
