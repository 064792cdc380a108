"""A check of a 200-field Protobuf schema against the 50 versions of its subject, transitively in both directions, over REST: ms (p99).

The baseline is `buf breaking` (wire rules), asked about the same schema and each of the versions.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import numpy as np

from bench.registry import registry
from bench.result import report

FIELDS, VERSIONS, CHECKS = 200, 50, 30
SUBJECT = "bench-value"
TYPES = ("int32", "int64", "string", "double", "bytes", "bool", "repeated int64", "Place", "map<string, Place>", "State")


def schema(fields: int, note: str = "") -> str:
    """A file with a message of so many fields, a fifth of them messages, maps and enums."""
    lines = [f"  {TYPES[number % len(TYPES)]} field_{number} = {number};" for number in range(1, fields + 1)]
    parts = ["message Place { double latitude = 1; double longitude = 2; string name = 3; }", "enum State { ON = 0; OFF = 1; }"]
    return "\n".join(['syntax = "proto3";', "package bench.v1;", "message Wide {", *lines, note, "}", *parts])


async def main() -> None:
    """Registers the versions, each with a field more, then checks schemas with a field more still."""
    texts = [schema(FIELDS - VERSIONS + place) for place in range(VERSIONS)]
    async with registry() as served, aiohttp.ClientSession() as session:
        url = f"{served.rest}/subjects/{SUBJECT}/versions"
        await _sent(session.put(f"{served.rest}/config/{SUBJECT}", json={"compatibility": "FULL_TRANSITIVE"}))
        for text in texts:
            await _sent(session.post(url, json={"schema": text, "schemaType": "PROTOBUF"}))
        path = f"{served.rest}/compatibility/subjects/{SUBJECT}/versions?verbose=true"
        found = []
        for place in range(CHECKS):
            # Each is a schema that the registry never saw.
            body = {"schema": schema(FIELDS, f"  int32 other_{place} = {FIELDS + 1 + place};"), "schemaType": "PROTOBUF"}
            began = time.perf_counter()
            verdict = await _sent(session.post(path, json=body))
            found.append((time.perf_counter() - began) * 1000)
            assert verdict["is_compatible"], verdict
        wrong = schema(FIELDS).replace("int32 field_10 ", "string field_10 ").replace("int64 field_1 ", "double field_1 ")
        verdict = await _sent(session.post(path, json={"schema": wrong, "schemaType": "PROTOBUF"}))
        assert not verdict["is_compatible"], verdict
    report(
        "compatibility",
        float(np.percentile(found, 99)),
        "ms (p99)",
        baseline=(f"buf breaking, {VERSIONS} times", await asyncio.to_thread(_buf, texts)),
        p50_ms=float(np.median(found)),
        fields=FIELDS,
        versions=VERSIONS,
    )


async def _sent(call: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> dict[str, object]:
    async with call as reply:
        body: dict[str, object] = json.loads(await reply.text())
        assert reply.status == 200, body
        return body


def _buf(texts: list[str]) -> float:
    """Milliseconds of `buf breaking` for all versions."""
    buf = str(Path(sys.executable).with_name("buf"))
    with tempfile.TemporaryDirectory() as name:
        new, old = Path(name) / "new", Path(name) / "old"
        for folder, text in [(new, schema(FIELDS)), *((old / str(place), text) for place, text in enumerate(texts))]:
            folder.mkdir(parents=True)
            (folder / "wide.proto").write_text(text)
            (folder / "buf.yaml").write_text("version: v2\nbreaking:\n  use: [WIRE]\n")
        began = time.perf_counter()
        for place in range(len(texts)):
            subprocess.run([buf, "breaking", str(new), "--against", str(old / str(place))], check=True)
        return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    asyncio.run(main())
