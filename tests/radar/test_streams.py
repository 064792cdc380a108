"""Combiner and stream on real engines: killed at any point, every payment is counted and decided once."""

import signal
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import yaml
from aiokafka import TopicPartition

from arterial.api.events.v1.payment_event_pb2 import PaymentEvent
from arterial.api.radar.v1alpha1 import radar_service_pb2 as pb
from arterial.api.radar.v1alpha1 import radar_service_pb2_grpc
from arterial.api.radar.v1alpha1.risk_decision_pb2 import RiskDecision
from arterial.api.types.v1 import money_pb2, standing_pb2
from chassis import kafka, sql
from chassis.config import KafkaConfig
from chassis.partitioning import partition_of
from chassis.streaming.partials import derived_id
from chassis.testing import channel, eventually, running
from chassis.topics import Topic
from chassis.wire import frame, split
from deploy.local.child import Child, free_port, port_open
from services.radar.combine import combine
from services.radar.config import RadarConfig
from services.radar.serving import serve
from services.radar.store import DecisionStore

PAYMENTS = Topic("payment_events_v1", "arterial.api.events.v1.PaymentEvent", "account_id")
DECISIONS = Topic("radar_decisions_v1", "arterial.api.radar.v1alpha1.RiskDecision", "account_id")
PARTITIONS = 16


def authorised(account: str, card: str, *, ago_seconds: float = 0.0) -> PaymentEvent:
    """A payment of now."""
    event = PaymentEvent(
        event_id=uuid.uuid4().bytes,
        city_id=1,
        sequence=1,
        payment_id=f"payment-{uuid.uuid4().hex}",
        account_id=account,
        instrument_fingerprint=card,
        device_fingerprint=f"phone-{account}",
        amount=money_pb2.Money(amount_minor=1250, currency_code="USD"),
        stage=PaymentEvent.STAGE_AUTHORISED,
    )
    event.event_time.FromMicroseconds(int((time.time() - ago_seconds) * 1e6))
    return event


async def send(config: KafkaConfig, events: list[PaymentEvent]) -> None:
    """Sends events to their partitions."""
    producer = kafka.producer(config)
    await producer.start()
    for event in events:
        key = event.account_id.encode()
        target = TopicPartition(PAYMENTS.name, partition_of(key, PARTITIONS))
        await kafka.send_all(producer, target, [(key, frame(3, event.SerializeToString()))])
    await producer.stop()


async def decisions(config: KafkaConfig) -> list[RiskDecision]:
    """All decisions on the log."""
    client = kafka.consumer(config)
    await client.start()
    tps = [TopicPartition(DECISIONS.name, partition) for partition in range(PARTITIONS)]
    client.assign(tps)
    ends, found = await client.end_offsets(tps), []
    for tp in tps:
        client.seek(tp, 0)
    for tp in tps:
        while await client.position(tp) < ends[tp]:
            for records in (await client.getmany(timeout_ms=100)).values():
                found += [RiskDecision.FromString(split(record.value)[2]) for record in records]
    await client.stop()
    return found


def stream_process(config: RadarConfig, folder: Path) -> Child:
    """Role `stream` as a process of its own, to be killed."""
    file = folder / "radar.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return Child.start("radar-stream", [sys.executable, "-m", "services.radar", "stream", "--config", str(file)], folder / "stream.log")


async def test_killed_at_any_point_nothing_is_lost_or_doubled(radar_config: RadarConfig, tmp_path: Path) -> None:
    """Killed while it works, the stream goes on: one decision per authorised payment, resends included, as the rules say; one case each."""
    await kafka.ensure_topics(radar_config.kafka, [PAYMENTS, DECISIONS])
    run = uuid.uuid4().hex[:8]
    honest = [authorised(f"{run}-honest-{index}", f"{run}-card-{index}") for index in range(60)]
    ring = [authorised(f"{run}-ring-{index}", f"{run}-stolen", ago_seconds=-0.001 * index) for index in range(6)]
    ids = {event.event_id for event in honest + ring}

    async def decided(count: int) -> bool:
        return len({found.payment_event_id for found in await decisions(radar_config.kafka)} & ids) >= count

    process = stream_process(radar_config, tmp_path)
    try:
        async with running(combine, radar_config):
            await send(radar_config.kafka, honest[:30] + honest[:5])
            await eventually(lambda: decided(1), "the first decisions")
            await process.stop(signal.SIGKILL)
            process = stream_process(radar_config, tmp_path)
            await send(radar_config.kafka, [honest[0], *honest[30:]])
            for event in ring:  # one after another, as partitions have no common order
                await send(radar_config.kafka, [event])
                await eventually(lambda event=event: _has(radar_config.kafka, event.event_id), "the ring's decision")  # type: ignore[misc]
            await eventually(lambda: decided(len(ids)), "all decisions")
    finally:
        await process.stop()
    found = [each for each in await decisions(radar_config.kafka) if each.payment_event_id in ids]
    by_payment: dict[bytes, set[bytes]] = {}
    for each in found:
        by_payment.setdefault(each.payment_event_id, set()).add(each.SerializeToString(deterministic=True))
        assert each.event_id == derived_id("risk-decision", each.payment_event_id.hex())
    assert by_payment.keys() == ids
    assert all(len(versions) == 1 for versions in by_payment.values())
    actions = {each.payment_event_id: each.action for each in found}
    assert Counter(actions[event.event_id] for event in honest) == {RiskDecision.ACTION_ALLOW: 60}
    expected = [RiskDecision.ACTION_ALLOW] * 3 + [RiskDecision.ACTION_BLOCK] * 3
    assert [actions[event.event_id] for event in ring] == expected
    engine = sql.engine(radar_config.sql)
    cases, total = await DecisionStore(engine).cases(pb.ReviewCase.STATE_OPEN, 0, 100)
    await engine.dispose()
    assert total == 3 and sorted(len(case.decisions) for case in cases) == [1, 1, 1]


async def _has(config: KafkaConfig, event_id: bytes) -> bool:
    return any(found.payment_event_id == event_id for found in await decisions(config))


async def listening(port: int) -> bool:
    """True once the server takes connections."""
    try:
        return await port_open(port)
    except OSError:
        return False


async def test_a_request_and_the_stream_agree(radar_config: RadarConfig) -> None:
    """Assessed by RPC, without a model, a payment is decided by rules and says so; asked again it has the very same decision."""
    config = radar_config.model_copy(update={"rpc": radar_config.rpc.model_copy(update={"port": free_port()})})
    event = authorised(f"account-{uuid.uuid4().hex}", "card")
    async with running(serve, config), channel(f"127.0.0.1:{config.rpc.port}") as connection:
        stub = radar_service_pb2_grpc.RadarServiceStub(connection)
        await eventually(lambda: listening(config.rpc.port), "the server")
        first = await stub.Assess(pb.AssessRequest(payment=event))
        second = await stub.Assess(pb.AssessRequest(payment=event))
        looked_up = await stub.GetDecision(pb.GetDecisionRequest(payment_event_id=event.event_id))
    assert first.decision.decision == second.decision.decision == looked_up.decision.decision
    assert first.decision.standing.source == standing_pb2.VALUE_SOURCE_RULE_FALLBACK
    assert first.decision.standing.max_age_seconds == 60
    assert len(first.decision.decision.features_milli) > 30
