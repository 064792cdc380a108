"""Publish: records per second that one server acknowledges (all replicas), against single sends of the Kafka client.

Server and load generator are processes of their own; the value is the wall figure of one server process on a shared machine.
"""

import asyncio
import subprocess
import sys
import time

import yaml

from arterial.client import Client
from bench.engines import Engines, engines
from bench.result import report
from bench.trips import TOPIC, payloads
from chassis import kafka
from deploy.local.child import Child, free_port
from deploy.local.services import RESOURCES
from deploy.local.supervisor import serving

SECONDS = 8.0
FRAME_RECORDS = 500
SENDERS = 48
BASELINE_RECORDS = 50_000


async def main() -> None:
    """Runs both against one Kafka."""
    async with engines() as places:
        port = free_port()
        config = places.folder / "ingestion.yaml"
        settings = {
            "state_dir": str(places.folder / "state"),
            "resources_dir": str(RESOURCES),
            "kafka": {"bootstrap": places.kafka.bootstrap},
            "lake": {"root": places.lake.root},
            "olap": {"port": free_port()},
            "rpc": {"port": port},
        }
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "services.ingestion", "serve", "--config", str(config)]
        server = Child.start("ingestion-serve", command, places.folder / "serve.log")
        try:
            await server.healthy(lambda: serving(f"127.0.0.1:{port}"))
            rate = await load(f"127.0.0.1:{port}")
            cores = cpu_of(server.pid)
        finally:
            await server.stop()
        baseline = await one_by_one(places)
    report(
        "publish", rate, "records/s", baseline=("aiokafka send() one by one", baseline), per_core=rate * SECONDS / cores if cores else 0.0
    )


async def load(address: str) -> float:
    """Acknowledged records per second."""
    records, _, _ = payloads(FRAME_RECORDS)
    acknowledged = 0
    deadline = time.monotonic() + SECONDS
    began = time.monotonic()
    async with Client(ingestion=address) as client, client.publisher() as publisher:

        async def sender() -> int:
            done = 0
            while time.monotonic() < deadline:
                reply = await publisher.publish(TOPIC.name, records)
                done += sum(offset >= 0 for offset in reply.offsets)
            return done

        acknowledged = sum(await asyncio.gather(*(sender() for _ in range(SENDERS))))
    return acknowledged / (time.monotonic() - began)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    ticks = subprocess.run(["cat", f"/proc/{pid}/stat"], capture_output=True, text=True, check=True).stdout.rsplit(")", 1)[1].split()
    return (int(ticks[11]) + int(ticks[12])) / 100


async def one_by_one(places: Engines) -> float:
    """Records per second of single sends."""
    records, partitions, keys = payloads(BASELINE_RECORDS)
    producer = kafka.producer(places.kafka, linger_ms=5)
    await producer.start()
    began = time.monotonic()
    futures = [
        await producer.send(TOPIC.name, record, key=key, partition=int(partition) % TOPIC.partitions)
        for record, key, partition in zip(records, keys, partitions, strict=True)
    ]
    await asyncio.gather(*futures)
    rate = len(records) / (time.monotonic() - began)
    await producer.stop()
    return rate


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
