"""`arterial up`, `status` and `down`: the embedded stack."""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chassis.errors import ArterialError, Reason
from deploy.local.child import runs
from deploy.local.memory import pss_mb
from deploy.local.services import SERVICES
from deploy.local.supervisor import Stack, listening, read_state, serving

START_SECONDS = 240


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    up = commands.add_parser("up", help="start engines and services on free loopback ports")
    up.add_argument("--detach", action="store_true", help="return when everything is up")
    up.set_defaults(run=run_up)
    commands.add_parser("status", help="every process: health, port, memory").set_defaults(run=run_status)
    commands.add_parser("down", help="stop the stack").set_defaults(run=run_down)


def state_of(data_dir: Path) -> dict[str, Any]:
    """The state of the running stack. Raises REFUSED if none runs."""
    state = read_state(data_dir)
    if state is None:
        raise ArterialError(Reason.REFUSED, f"no stack runs over {data_dir}: 'arterial up' starts one")
    return state


async def run_up(arguments: argparse.Namespace) -> int:
    """Starts the stack and stays with it until a signal, unless detached."""
    if arguments.detach:
        return _detach(arguments.data_dir)
    stack = Stack(arguments.data_dir, say=lambda line: print(line, flush=True))
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    starting: asyncio.Future[object] = asyncio.ensure_future(stack.start())
    waiting: asyncio.Future[object] = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 130
    await starting
    print(json.dumps(stack.places.addresses()) if arguments.output == "json" else _welcome(stack.places.addresses()), flush=True)
    failing: asyncio.Future[object] = asyncio.ensure_future(stack.failure())
    await asyncio.wait({failing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    await stack.stop()
    if failing.done():
        print(f"arterial: {failing.result()}", file=sys.stderr)
        return 1
    failing.cancel()
    return 0


def _welcome(addresses: dict[str, str]) -> str:
    return "\n".join(["everything is up; Ctrl-C stops it", *(f"  {name:<13}{address}" for name, address in addresses.items())])


def _detach(data_dir: Path) -> int:
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "up.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "cli", "--data-dir", str(data_dir), "up"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None or "everything is up" in log.read_text():
            break
        time.sleep(0.1)
    print(log.read_text().strip())
    return 0 if child.poll() is None else 1


async def run_status(arguments: argparse.Namespace) -> int:
    """One row per process; exit status 1 if any is not healthy."""
    state = state_of(arguments.data_dir)
    rpc = {service.name for service in SERVICES if service.port}
    rows = []
    for name, process in state["processes"].items():
        alive = runs(process["pid"])
        port = process["port"]
        healthy = alive and (port is None or await (serving(f"127.0.0.1:{port}") if name in rpc else listening(port)))
        rows.append({"process": name, "pid": process["pid"], "healthy": healthy, "port": port, "pss_mb": round(pss_mb(process["pid"]), 1)})
    if arguments.output == "json":
        print(json.dumps({"processes": rows, "addresses": state["addresses"]}))
    else:
        print(f"{'process':<20}{'pid':>8}  {'health':<10}{'port':>6}{'pss MB':>9}")
        for row in rows:
            health = "healthy" if row["healthy"] else "NOT OK"
            print(f"{row['process']:<20}{row['pid']:>8}  {health:<10}{row['port'] or '-':>6}{row['pss_mb']:>9}")
        print(f"{'together':<46}{sum(float(str(row['pss_mb'])) for row in rows):>7.0f}")
    return 0 if all(row["healthy"] for row in rows) else 1


def run_down(arguments: argparse.Namespace) -> int:
    """Stops the stack by its supervisor's process id; returns when it has ended."""
    state = state_of(arguments.data_dir)
    os.kill(state["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 60
    while runs(state["pid"]):
        if time.monotonic() > deadline:
            print(f"arterial: process {state['pid']} did not stop within 60 s", file=sys.stderr)
            return 1
        time.sleep(0.1)
    print(json.dumps({"stopped": state["pid"]}) if arguments.output == "json" else "stopped")
    return 0
