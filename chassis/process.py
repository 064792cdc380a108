"""The life of a process: arguments, configuration, signals, telemetry, one role, exit status."""

import argparse
import asyncio
import gc
import importlib
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TypeVar

import uvloop

from chassis import logs
from chassis.clock import Clock, SystemClock
from chassis.config import ServiceConfig, load
from chassis.errors import ArterialError
from chassis.telemetry import Telemetry

C = TypeVar("C", bound=ServiceConfig)


@dataclass
class Context:
    """What every role is given besides its configuration."""

    telemetry: Telemetry
    clock: Clock = field(default_factory=SystemClock)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    # Name of program and role, for example "arterial-pricing-serve".
    process: str = ""


Role = Callable[[C, Context], Awaitable[None]]
# Arrow imports pandas at its first array, wherever it is installed (the embedded OLAP engine brings it): a second of CPU and 40 MB in each
# of twenty processes, none of which uses it.
UNUSED = ("pandas",)


def main(program: str, config_class: type[C], roles: Mapping[str, Role[C] | str]) -> None:
    """Runs one role until SIGTERM or SIGINT; an exception ends the process with status 1, wrong configuration with 2.

    A role may be named, "package.module:function": then only the process that runs it imports it, which saves the others memory and time.
    """
    parser = argparse.ArgumentParser(prog=program, description=f"Runs one role of {program}, against addresses from its configuration.")
    parser.add_argument("role", choices=sorted(roles), help="what this process does")
    parser.add_argument("--config", type=Path, help="YAML file; ARTERIAL_ variables win over it")
    parser.add_argument("--check-config", action="store_true", help="validate the configuration and exit")
    arguments = parser.parse_args()
    try:
        config = load(config_class, arguments.config)
    except ArterialError as error:
        print(error.message, *(f"  {v.field}: {v.description}" for v in error.violations), sep="\n", file=sys.stderr)
        sys.exit(2)
    if arguments.check_config:
        print(f"{program} {arguments.role}: the configuration is valid")
        return
    process = f"{program}-{arguments.role}"
    logs.configure(process)
    try:
        uvloop.run(_run(_imported(roles[arguments.role]), config, process))
    except Exception:
        logs.logger(__name__).exception("process failed")
        sys.exit(1)


class _Unused(MetaPathFinder):
    """Finds nothing, but says of what is never used that it is not there, which its importers bear."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname in UNUSED:
            raise ModuleNotFoundError(f"{fullname} is not used by this process", name=fullname)


def _imported(role: Role[C] | str) -> Role[C]:
    sys.meta_path.insert(0, _Unused())
    if not isinstance(role, str):
        return role
    module, _, function = role.partition(":")
    found: Role[C] = getattr(importlib.import_module(module), function)
    return found


async def _run(role: Role[C], config: C, process: str) -> None:
    context = Context(Telemetry(config.telemetry, process, config.cell.name), process=process)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, context.stopping.set)
    logs.logger(__name__).info("started")
    # What was imported stays: more than 100,000 objects that each full collection would look at again, for a tenth of a second.
    gc.collect()
    gc.freeze()
    try:
        await role(config, context)
    finally:
        await asyncio.to_thread(context.telemetry.shutdown)
    logs.logger(__name__).info("stopped")
