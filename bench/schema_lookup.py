"""Look-ups of schemas by id, per second and core of the server: over REST, and over gRPC beside it.

Server and load generator are processes of their own; the figures are look-ups per CPU second of the server. The baseline is a handler of
the same HTTP server that does nothing.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from arterial.api.controlplane.v1 import schema_registry_service_pb2 as pb
from arterial.api.controlplane.v1 import schema_registry_service_pb2_grpc
from bench.publish import cpu_of
from bench.registry import registry
from bench.result import report
from chassis.rpc.client import channel
from deploy.local.child import LOOPBACK, free_port

SECONDS, SENDERS, SCHEMAS = 5.0, 32, 200


async def main() -> None:
    """Asks both for schemas of 20 fields, and the server that does nothing."""
    async with registry() as served, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=SENDERS)) as session:
        ids = [await registered(session, served.rest, number) for number in range(SCHEMAS)]

        async def by_rest(number: int) -> None:
            async with session.get(f"{served.rest}/schemas/ids/{ids[number % SCHEMAS]}") as reply:
                assert reply.status == 200
                await reply.read()

        rest = await per_core(by_rest, served.pid)
        async with channel(served.rpc) as connection:
            stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(connection)

            async def by_grpc(number: int) -> None:
                await stub.GetSchema(pb.GetSchemaRequest(schema_id=ids[number % SCHEMAS]))

            grpc = await per_core(by_grpc, served.pid)
        baseline = await nothing(session)
    report(
        "schema_lookup",
        rest,
        "look-ups/s per core (REST)",
        baseline=("an aiohttp handler that does nothing, per core", baseline),
        grpc_per_core=grpc,
    )


async def registered(session: aiohttp.ClientSession, url: str, number: int) -> int:
    """Id of an Avro record of 20 fields."""
    fields = [{"name": f"field_{place}", "type": "long", "default": number} for place in range(20)]
    schema = json.dumps({"type": "record", "name": f"Record{number}", "fields": fields})
    async with session.post(f"{url}/subjects/bench-{number}/versions", json={"schema": schema}) as reply:
        return int((await reply.json(content_type=None))["id"])


async def per_core(ask: Callable[[int], Awaitable[None]], pid: int) -> float:
    """Answers per CPU second of a process."""
    for number in range(SCHEMAS):
        await ask(number)
    began, deadline = cpu_of(pid), time.monotonic() + SECONDS

    async def sender(first: int) -> int:
        done = 0
        while time.monotonic() < deadline:
            await ask(first + done)
            done += 1
        return done

    answered = sum(await asyncio.gather(*(sender(place) for place in range(SENDERS))))
    return answered / max(cpu_of(pid) - began, 0.01)


async def nothing(session: aiohttp.ClientSession) -> float:
    """The same of a server that answers with a constant."""
    port = free_port()
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.schema_lookup", str(port), env=dict(os.environ))
    url = f"http://{LOOPBACK}:{port}/"

    async def ask(_: int) -> None:
        async with session.get(url) as reply:
            await reply.read()

    try:
        for _ in range(100):
            try:
                await ask(0)
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
        return await per_core(ask, child.pid)
    finally:
        child.terminate()
        await child.wait()


async def serve_nothing(port: int) -> None:
    """Answers with a constant until it is stopped."""
    body = b"x" * 1000

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    application = web.Application()
    application.router.add_get("/", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve_nothing(int(sys.argv[1])) if len(sys.argv) > 1 else main())
