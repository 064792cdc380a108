"""What eta and radar answered while the demo ran: asked for like a rider's app would, and read from the stream of decisions."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from arterial.api.eta.v1alpha1 import eta_service_pb2 as eta
from arterial.api.eta.v1alpha1 import eta_service_pb2_grpc
from arterial.api.radar.v1alpha1.risk_decision_pb2 import RiskDecision
from arterial.api.types.v1.position_pb2 import Position
from arterial.channel import connect
from arterial.errors import ArterialError
from chassis import kafka
from chassis.config import KafkaConfig
from chassis.topics import Topic
from chassis.wire import split

DECISIONS = Topic("radar_decisions_v1", "arterial.api.radar.v1alpha1.RiskDecision", "account_id")
ASK_SECONDS = 0.2
# Midtown to the airport, and a short hop: degrees.
LEGS = (((40.7549, -73.9840), (40.7730, -73.8720)), ((40.7440, -74.0000), (40.7549, -73.9840)))
ALLOW, REVIEW, BLOCK = RiskDecision.ACTION_ALLOW, RiskDecision.ACTION_REVIEW, RiskDecision.ACTION_BLOCK


@dataclass
class EtaAnswers:
    """Answers so far; `last` is the newest."""

    latencies_ms: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    last: eta.Eta | None = None

    def report(self) -> dict[str, object]:
        """For the demo's report. The model's version is the newest that answered."""
        versions = sorted(version for version in self.versions if version)
        p99 = float(np.percentile(self.latencies_ms, 99)) if self.latencies_ms else None
        return {"answers": len(self.latencies_ms), "model_version": versions[-1] if versions else "", "p99_ms": p99}

    async def ask(self, address: str, city_id: int) -> None:
        """Asks for travel times until it is cancelled."""
        async with connect(address) as channel:
            stub = eta_service_pb2_grpc.EtaServiceStub(channel)
            number = 0
            while True:
                (from_lat, from_lon), (to_lat, to_lon) = LEGS[number % len(LEGS)]
                number += 1
                origin, destination = Position(latitude=from_lat, longitude=from_lon), Position(latitude=to_lat, longitude=to_lon)
                request = eta.GetEtaRequest(city_id=city_id, leg=eta.Leg(origin=origin, destination=destination))
                began = time.monotonic()
                with suppress(ArterialError):
                    self.last = (await stub.GetEta(request, timeout=2)).eta
                    self.latencies_ms.append((time.monotonic() - began) * 1000)
                    self.versions[self.last.model_version] += 1
                await asyncio.sleep(ASK_SECONDS)


@dataclass(frozen=True)
class RadarAnswers:
    """Decisions of the show, and how they compare with the truth, by payment."""

    actions: Mapping[int, int] = field(default_factory=dict)
    # By scenario: fraudulent payments that were held up (review or block), and all.
    caught: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    false_alarms: int = 0

    def report(self) -> dict[str, object]:
        """For the demo's report."""
        caught, fraud = (sum(counts[place] for counts in self.caught.values()) for place in (0, 1))
        return {
            "allow": self.actions.get(ALLOW, 0),
            "review": self.actions.get(REVIEW, 0),
            "block": self.actions.get(BLOCK, 0),
            "caught": caught,
            "missed": fraud - caught,
            "false_alarms": self.false_alarms,
        }


async def radar_answers(bootstrap: str, ledger: Path) -> RadarAnswers:
    """Reads all decisions, each payment's first, and compares them with who really was a fraudster."""
    file = ledger / "fraud.json"
    truth: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    actions: dict[str, int] = {}
    config = KafkaConfig(bootstrap=bootstrap)
    consumer = kafka.consumer(config)
    await consumer.start()
    try:
        tps = kafka.partitions(DECISIONS)
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        for tp in tps:
            consumer.seek(tp, 0)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    decision = RiskDecision.FromString(split(record.value)[2])
                    actions.setdefault(decision.payment_id, decision.action)
    finally:
        await consumer.stop()
    held = {payment for payment, action in actions.items() if action in (REVIEW, BLOCK)}
    caught = {
        scenario: (sum(payment in held for payment in payments), len(payments))
        for scenario in sorted(set(truth.values()))
        if (payments := [payment for payment, named in truth.items() if named == scenario])
    }
    return RadarAnswers(Counter(actions.values()), caught, len(held - truth.keys()))
