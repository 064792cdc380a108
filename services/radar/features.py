"""The feature set of radar: declared once, with one meaning online (evaluated here) and offline (`point_in_time.py` writes it as SQL).

A feature of a payment event at time t looks at the events of one entity (account, instrument or device) within (t - window, t] that stand
before or at the event in the order (event_time, event_id), the newest `HISTORY` of them. All values are integers, in thousandths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from arterial.api.events.v1.payment_event_pb2 import PaymentEvent

ONE_MILLI = 1000
SECOND_US = 1_000_000
# Events of one entity that are looked at: an attacked entity cannot grow the store or the cost of a decision; its counts saturate here.
HISTORY = 256
# Amounts may be wrong in any way; beyond these, minor units, sums would leave 64 bits.
LEAST_AMOUNT, LARGEST_AMOUNT = 0, 100_000_000_000
HOUR, DAY, WEEK = 3600, 86_400, 604_800
AUTHORISED, DECLINED = int(PaymentEvent.STAGE_AUTHORISED), int(PaymentEvent.STAGE_DECLINED)
REFUNDED, CHARGED_BACK = int(PaymentEvent.STAGE_REFUNDED), int(PaymentEvent.STAGE_CHARGED_BACK)


class Entity(StrEnum):
    """Whose events are looked at."""

    ACCOUNT = "account"
    INSTRUMENT = "instrument"
    DEVICE = "device"


class Aggregate(Enum):
    """What is made of the events that count."""

    # The event's own amount, minor units; no window.
    AMOUNT = "amount"
    COUNT = "count"
    # Of amounts, minor units.
    SUM = "sum"
    # Different values of another entity; an absent one does not count.
    DISTINCT = "distinct"
    # Since the entity's last earlier event; the window where there is none.
    SECONDS_SINCE = "seconds_since"
    # Since the entity's first event within the window; 0 where there is no earlier one.
    SECONDS_SINCE_FIRST = "seconds_since_first"
    # 1 if the entity has earlier events, but none with this event's value of another entity.
    IS_NEW = "is_new"
    # The event's amount against the mean of the earlier ones; 1 where there is none. Rounded down.
    RATIO_TO_MEAN = "ratio_to_mean"


@dataclass(frozen=True)
class Feature:
    """One feature; `of` is the entity that DISTINCT counts and IS_NEW compares, `reason` the stable code that it is told to people by."""

    name: str
    entity: Entity
    aggregate: Aggregate
    window_seconds: int
    reason: str
    stage: int = AUTHORISED
    of: Entity | None = None

    @property
    def window_us(self) -> int:
        """The window in microseconds."""
        return self.window_seconds * SECOND_US

    @property
    def absent_milli(self) -> int:
        """The value for an event that lacks the entity, or whose entity has no other events."""
        if self.aggregate is Aggregate.SECONDS_SINCE:
            return self.window_seconds * ONE_MILLI
        return ONE_MILLI if self.aggregate is Aggregate.RATIO_TO_MEAN else 0


@dataclass(frozen=True)
class FeatureSet:
    """Features in their order; another set or order is another version."""

    version: int
    features: tuple[Feature, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def stages(self) -> frozenset[int]:
        """Stages whose events count for some feature; others mean nothing here."""
        return frozenset(feature.stage for feature in self.features)

    @cached_property
    def longest_us(self) -> int:
        """The longest window, microseconds."""
        return max(feature.window_us for feature in self.features)


def _windows(prefix: Entity, reason: str, **windows: int) -> list[Feature]:
    return [Feature(f"{prefix}_payments_{name}", prefix, Aggregate.COUNT, seconds, reason) for name, seconds in windows.items()]


_ACCOUNT, _INSTRUMENT, _DEVICE = Entity.ACCOUNT, Entity.INSTRUMENT, Entity.DEVICE
FEATURES = FeatureSet(
    1,
    (
        Feature("amount", _ACCOUNT, Aggregate.AMOUNT, 0, "amount_unusual"),
        Feature("account_amount_ratio_7d", _ACCOUNT, Aggregate.RATIO_TO_MEAN, WEEK, "amount_unusual"),
        *_windows(_ACCOUNT, "account_many_payments", **{"10m": 600, "1h": HOUR, "1d": DAY, "7d": WEEK}),
        Feature("account_amount_1d", _ACCOUNT, Aggregate.SUM, DAY, "account_large_amounts"),
        Feature("account_amount_7d", _ACCOUNT, Aggregate.SUM, WEEK, "account_large_amounts"),
        Feature("account_declines_1d", _ACCOUNT, Aggregate.COUNT, DAY, "account_declines", DECLINED),
        Feature("account_refunds_1d", _ACCOUNT, Aggregate.COUNT, DAY, "account_refunds", REFUNDED),
        Feature("account_refunds_7d", _ACCOUNT, Aggregate.COUNT, WEEK, "account_refunds", REFUNDED),
        Feature("account_refunded_7d", _ACCOUNT, Aggregate.SUM, WEEK, "account_refunds", REFUNDED),
        Feature("account_chargebacks_7d", _ACCOUNT, Aggregate.COUNT, WEEK, "account_chargebacks", CHARGED_BACK),
        Feature("account_instruments_1d", _ACCOUNT, Aggregate.DISTINCT, DAY, "account_many_instruments", of=_INSTRUMENT),
        Feature("account_instruments_7d", _ACCOUNT, Aggregate.DISTINCT, WEEK, "account_many_instruments", of=_INSTRUMENT),
        Feature("account_devices_7d", _ACCOUNT, Aggregate.DISTINCT, WEEK, "account_many_devices", of=_DEVICE),
        Feature("account_new_instrument_7d", _ACCOUNT, Aggregate.IS_NEW, WEEK, "account_new_instrument", of=_INSTRUMENT),
        Feature("account_new_device_7d", _ACCOUNT, Aggregate.IS_NEW, WEEK, "account_new_device", of=_DEVICE),
        Feature("account_seconds_since_payment", _ACCOUNT, Aggregate.SECONDS_SINCE, WEEK, "account_many_payments"),
        Feature("account_age_seconds_7d", _ACCOUNT, Aggregate.SECONDS_SINCE_FIRST, WEEK, "account_young"),
        *_windows(_INSTRUMENT, "instrument_many_payments", **{"10m": 600, "1h": HOUR, "1d": DAY}),
        Feature("instrument_amount_1d", _INSTRUMENT, Aggregate.SUM, DAY, "instrument_large_amounts"),
        Feature("instrument_accounts_1d", _INSTRUMENT, Aggregate.DISTINCT, DAY, "instrument_many_accounts", of=_ACCOUNT),
        Feature("instrument_accounts_7d", _INSTRUMENT, Aggregate.DISTINCT, WEEK, "instrument_many_accounts", of=_ACCOUNT),
        Feature("instrument_declines_1d", _INSTRUMENT, Aggregate.COUNT, DAY, "instrument_declines", DECLINED),
        Feature("instrument_chargebacks_7d", _INSTRUMENT, Aggregate.COUNT, WEEK, "instrument_chargebacks", CHARGED_BACK),
        *_windows(_DEVICE, "device_many_payments", **{"10m": 600, "1h": HOUR, "1d": DAY}),
        Feature("device_accounts_1d", _DEVICE, Aggregate.DISTINCT, DAY, "device_many_accounts", of=_ACCOUNT),
        Feature("device_accounts_7d", _DEVICE, Aggregate.DISTINCT, WEEK, "device_many_accounts", of=_ACCOUNT),
        Feature("device_instruments_1h", _DEVICE, Aggregate.DISTINCT, HOUR, "device_many_instruments", of=_INSTRUMENT),
        Feature("device_instruments_1d", _DEVICE, Aggregate.DISTINCT, DAY, "device_many_instruments", of=_INSTRUMENT),
        Feature("device_refunds_7d", _DEVICE, Aggregate.COUNT, WEEK, "device_refunds", REFUNDED),
        Feature("device_chargebacks_7d", _DEVICE, Aggregate.COUNT, WEEK, "device_chargebacks", CHARGED_BACK),
    ),
)


@dataclass(frozen=True)
class Payment:
    """A payment event as features see it; an absent entity is an empty text."""

    event_id: bytes
    time_us: int
    stage: int
    amount_minor: int
    account_id: str
    instrument: str
    device: str
    payment_id: str = ""
    city_id: int = 0

    def of(self, entity: Entity) -> str:
        """Which account, instrument or device."""
        return {Entity.ACCOUNT: self.account_id, Entity.INSTRUMENT: self.instrument, Entity.DEVICE: self.device}[entity]

    @property
    def amount(self) -> int:
        """The amount that counts, minor units."""
        return min(max(self.amount_minor, LEAST_AMOUNT), LARGEST_AMOUNT)


# Events of one entity. Identities of entities are 64-bit digests, 0 for an absent one: only equality matters.
HISTORY_DTYPE = np.dtype(
    [
        ("event_id", "S16"),
        ("time_us", "<i8"),
        ("stage", "<i8"),
        ("amount", "<i8"),
        ("account", "<u8"),
        ("instrument", "<u8"),
        ("device", "<u8"),
    ]
)
History = NDArray[np.void]


def evaluate(feature_set: FeatureSet, payment: Payment, own: Mapping[Entity, int], histories: Mapping[Entity, History]) -> list[int]:
    """The features of a payment event, thousandths, in the order of the set.

    `own` has the digest of each of its entities, `histories` the events of each up to the event itself, which stands last, in order;
    an absent entity has an empty history.
    """
    windows = {entity: _Window(payment, own, history) for entity, history in histories.items()}
    return [windows[feature.entity].value(feature) for feature in feature_set.features]


@dataclass
class _Window:
    payment: Payment
    own: Mapping[Entity, int]
    history: History

    def value(self, feature: Feature) -> int:
        if feature.aggregate is Aggregate.AMOUNT:
            return self.payment.amount * ONE_MILLI
        if not len(self.history):
            return feature.absent_milli
        counted = (self.history["time_us"] > self.payment.time_us - feature.window_us) & (self.history["stage"] == feature.stage)
        return self._aggregate(feature, counted)

    def _aggregate(self, feature: Feature, counted: NDArray[np.bool_]) -> int:
        history, earlier = self.history, counted[:-1]
        if feature.aggregate is Aggregate.COUNT:
            return int(np.count_nonzero(counted)) * ONE_MILLI
        if feature.aggregate is Aggregate.SUM:
            return int(history["amount"][counted].sum()) * ONE_MILLI
        if feature.aggregate is Aggregate.RATIO_TO_MEAN:
            total = int(history["amount"][:-1][earlier].sum())
            return self.payment.amount * ONE_MILLI * int(np.count_nonzero(earlier)) // total if total else ONE_MILLI
        if feature.aggregate in (Aggregate.SECONDS_SINCE, Aggregate.SECONDS_SINCE_FIRST):
            times = history["time_us"][:-1][earlier]
            which = -1 if feature.aggregate is Aggregate.SECONDS_SINCE else 0
            return (self.payment.time_us - int(times[which])) // ONE_MILLI if len(times) else feature.absent_milli
        assert feature.of is not None
        others = history[feature.of.value]
        if feature.aggregate is Aggregate.DISTINCT:
            values = others[counted]
            return len(np.unique(values[values != 0])) * ONE_MILLI
        known = others[:-1][earlier]
        mine = self.own[feature.of]
        return ONE_MILLI if mine and len(known) and mine not in known else 0


def strongest(feature_set: FeatureSet, contributions: Sequence[float], limit: int) -> list[str]:
    """Reason codes of the features that raised a score most, strongest first, each once."""
    raised = sorted((-value, index) for index, value in enumerate(contributions) if value > 0)
    return list(dict.fromkeys(feature_set.features[index].reason for _, index in raised))[:limit]
