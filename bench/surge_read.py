"""GetSurge at 1,000 requests per second: p99 in milliseconds, against an RPC of the same server that reads no store (health)."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h3.api import basic_int

from arterial.api.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc
from bench.engines import engines
from bench.result import report
from chassis import kv
from chassis.streaming.online import Head
from chassis.streaming.windows import coarsen
from deploy.local.child import Child, free_port
from deploy.local.services import RESOURCES
from deploy.local.supervisor import serving
from services.pricing.store import surge_store

RATE, SECONDS, CITY = 1000, 10, 1
CELLS = np.array(sorted(basic_int.grid_disk(basic_int.latlng_to_cell(40.75, -73.98, 9), 12)), np.int64)


async def main() -> None:
    """Both in the same run, one after the other."""
    async with engines() as places:
        redis = kv.connect(places.kv)
        now = int(time.time() * 1e6)
        parents = sorted(set(coarsen(CELLS, 8).tolist()))
        cells = np.column_stack([np.full(len(parents), CITY), parents])
        values = np.tile(np.array([1500, 1500, 9000, 2000, now // 1_000_000]), (len(parents), 1))
        await surge_store(redis).write_cells(Head(now, now, now, 0, 3, 41), cells, values, cells[:0])
        port = free_port()
        settings = {
            "state_dir": str(places.folder / "state"),
            "resources_dir": str(RESOURCES),
            "kafka": {"bootstrap": places.kafka.bootstrap},
            "kv": {"url": places.kv.url},
            "checkpoints": {"root": str(places.folder / "checkpoints")},
            "lake": {"root": str(places.folder / "lake")},
            "models": {"root": str(places.folder / "models")},
            "rpc": {"port": port},
        }
        config = places.folder / "pricing.yaml"
        config.write_text(yaml.safe_dump(settings))
        server = Child.start(
            "pricing-serve", [sys.executable, "-m", "services.pricing", "serve", "--config", str(config)], places.folder / "serve.log"
        )
        try:
            await server.healthy(lambda: serving(f"127.0.0.1:{port}"))
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub, health = pricing_service_pb2_grpc.PricingServiceStub(channel), _health(channel)
                requests = [pricing_service_pb2.GetSurgeRequest(city_id=CITY, cell=int(cell)) for cell in CELLS]
                reply = await stub.GetSurge(requests[0])
                assert reply.surge.multiplier_milli == 1500, reply
                await paced(lambda number: stub.GetSurge(requests[number % len(requests)]), seconds=3)  # warm
                found = await paced(lambda number: stub.GetSurge(requests[number % len(requests)]))
                bare = await paced(lambda number: health.Check(health_pb2.HealthCheckRequest()))
        finally:
            await server.stop()
            await redis.aclose()
    p99 = float(np.percentile(found, 99))
    baseline = ("health check of the same server", float(np.percentile(bare, 99)))
    report("surge_read", p99, "ms (p99 at 1,000 rps)", baseline=baseline, p50_ms=float(np.median(found)), calls=float(len(found)))


def _health(channel: grpc.aio.Channel) -> Any:
    stubs: Any = health_pb2_grpc
    return stubs.HealthStub(channel)


async def paced(call: Callable[[int], Awaitable[object]], seconds: int = SECONDS) -> list[float]:
    """Latency in ms of each call, RATE calls a second by the clock; a late call counts from when it was due."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def one(number: int) -> None:
        due = began + number / RATE
        await call(number)
        latencies.append((time.perf_counter() - due) * 1000)

    tasks = []
    for number in range(RATE * seconds):
        pause = began + number / RATE - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return latencies


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
