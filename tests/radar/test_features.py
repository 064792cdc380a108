"""One meaning of the features: online in Redis and offline in ClickHouse they are the same to the last thousandth."""

import random
import uuid
from collections.abc import AsyncIterator

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from hypothesis import given
from hypothesis import strategies as st

from chassis import olap
from chassis.config import OlapConfig
from services.radar.features import (
    AUTHORISED,
    CHARGED_BACK,
    DAY,
    DECLINED,
    FEATURES,
    HISTORY,
    REFUNDED,
    WEEK,
    Payment,
    strongest,
)
from services.radar.point_in_time import features_sql
from services.radar.velocities import Velocities
from tests.radar.conftest import payment

START_US = 1_760_000_000_000_000


@pytest.fixture
async def client(olap_config: OlapConfig) -> AsyncIterator[AsyncClient]:
    """A client of the running engine."""
    connected = await olap.connect(olap_config)
    yield connected
    await connected.close()


def crowd(count: int, seed: int) -> list[Payment]:
    """Events of few entities over a month: ties, gaps at the exact edge of windows, absent entities, absurd amounts, resends of none."""
    chance = random.Random(seed)
    run = uuid.uuid4().hex[:6]
    found: list[Payment] = []
    for _ in range(count):
        step = chance.choice([0, 0, 1, 600_000_000, 3_600_000_000, 86_400_000_000, chance.randrange(40_000_000_000)])
        time_us = (found[-1].time_us if found else START_US) + step
        names = (f"{run}a{chance.randrange(5)}", chance.choice(["", f"{run}c{chance.randrange(6)}"]), f"{run}d{chance.randrange(4)}")
        stage = chance.choice([AUTHORISED] * 5 + [DECLINED, REFUNDED, CHARGED_BACK, 3])
        amount = chance.choice([0, -5, 10**15, 700, chance.randrange(100_000)])
        found.append(payment(time_us, *names, stage=stage, amount=amount))
    return sorted(found, key=lambda event: (event.time_us, event.event_id))


async def offline(client: AsyncClient, events: list[Payment]) -> dict[bytes, list[int]]:
    """Features by event id as the SQL has them."""
    table = f"`payments_{uuid.uuid4().hex[:8]}`"
    await client.command(
        f"CREATE TABLE {table} (event_id String, payment_id Nullable(String), event_time DateTime64(6, 'UTC'), stage Nullable(Int32), "
        "amount_amount_minor Nullable(Int64), account_id Nullable(String), instrument_fingerprint Nullable(String), "
        "device_fingerprint Nullable(String)) ENGINE = MergeTree ORDER BY event_time"
    )
    rows = ", ".join(
        f"(unhex('{e.event_id.hex()}'), '{e.payment_id}', fromUnixTimestamp64Micro({e.time_us}), {e.stage}, {e.amount_minor}, "
        f"'{e.account_id}', {repr(e.instrument) if e.instrument else 'NULL'}, '{e.device}')"
        for e in events
    )
    await client.command(f"INSERT INTO {table} VALUES {rows}")
    sql = features_sql(FEATURES, table)
    result = await client.query(sql)
    await client.command(f"DROP TABLE {table} SYNC")
    return {bytes.fromhex(row[0]): [int(value) for value in row[3:]] for row in result.result_rows}


async def test_online_and_offline_agree_exactly(client: AsyncClient, velocities: Velocities) -> None:
    """The same events give the same features by Redis and by SQL, at ties, at edges of windows, and where an entity is absent."""
    events = crowd(600, seed=7)
    online = await velocities.observe(events, AUTHORISED)
    expected = await offline(client, events)
    found = {event.event_id: values for event, values in zip(events, online, strict=True) if values is not None}
    assert len(found) > 200
    assert found == expected


async def test_redelivery_and_disorder_change_nothing(client: AsyncClient, velocities: Velocities) -> None:
    """Taken twice, in another order the second time, every event keeps the features that SQL gives it: nothing is counted twice."""
    events = [event for event in crowd(150, seed=11) if event.time_us < START_US + 6 * 86_400_000_000]
    await velocities.observe(events, AUTHORISED)
    shuffled = random.Random(3).sample(events, len(events))
    again = await velocities.observe(shuffled, AUTHORISED)
    expected = await offline(client, events)
    assert {event.event_id: values for event, values in zip(shuffled, again, strict=True) if values is not None} == expected


async def test_an_attacked_entity_stays_bounded(client: AsyncClient, velocities: Velocities) -> None:
    """More events than a history holds saturate its counts, online as offline, and the store does not grow."""
    run = uuid.uuid4().hex[:6]
    events = [payment(START_US + index * 1000, f"{run}-{index}", f"card-{run}-{index}", f"phone-{run}") for index in range(HISTORY + 40)]
    online = await velocities.observe(events, AUTHORISED)
    assert {event.event_id: values for event, values in zip(events, online, strict=True)} == await offline(client, events)
    last = dict(zip(FEATURES.names, online[-1] or [], strict=True))
    assert last["device_payments_1h"] == last["device_accounts_1d"] == HISTORY * 1000


def test_the_set_holds_together() -> None:
    """Names are unique, and no window is longer than what the store keeps."""
    assert len(set(FEATURES.names)) == len(FEATURES.names)
    assert FEATURES.longest_us == WEEK * 1_000_000
    assert FEATURES.stages == {AUTHORISED, DECLINED, REFUNDED, CHARGED_BACK}
    assert all(feature.window_seconds >= 600 for feature in FEATURES.features if feature.name != "amount")
    assert DAY in {feature.window_seconds for feature in FEATURES.features}


@given(st.lists(st.floats(-5, 5, allow_nan=False), min_size=len(FEATURES.names), max_size=len(FEATURES.names)), st.integers(1, 6))
def test_reasons_are_the_strongest_that_raised_the_score(contributions: list[float], limit: int) -> None:
    """Only what raised the score is a reason, strongest first, no code twice."""
    codes = strongest(FEATURES, contributions, limit)
    best: dict[str, float] = {}
    for feature, value in zip(FEATURES.features, contributions, strict=True):
        best[feature.reason] = max(value, best.get(feature.reason, 0.0))
    assert len(codes) == min(limit, sum(value > 0 for value in best.values()))
    assert [best[code] for code in codes] == sorted((value for value in best.values() if value > 0), reverse=True)[:limit]
