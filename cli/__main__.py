"""`arterial`: a thin client of the services and of the embedded stack."""

import argparse
import asyncio
import inspect
import os
import sys
from pathlib import Path

from chassis.errors import ArterialError
from cli import (
    audit,
    backfill,
    backup,
    demo,
    inspecting,
    lineage,
    models,
    partitions,
    publish,
    replay,
    resources,
    rollout,
    runs,
    scaffold,
    schemas,
    slo,
    stack,
    wait,
)
from deploy.local.child import StartError


def parser() -> argparse.ArgumentParser:
    """The command line; what is parsed has `run`, the function of its command."""
    words = argparse.ArgumentParser(prog="arterial", description=__doc__)
    words.add_argument("--data-dir", type=Path, default=Path(".arterial"), help="data folder of the embedded stack (default .arterial)")
    words.add_argument("--output", choices=("text", "json"), default="text", help="text for people, json for programs")
    commands = words.add_subparsers(dest="command", required=True)
    for module in (
        stack,
        resources,
        inspecting,
        wait,
        rollout,
        schemas,
        runs,
        partitions,
        slo,
        models,
        lineage,
        backup,
        publish,
        scaffold,
        backfill,
        replay,
        audit,
        demo,
    ):
        module.register(commands)
    return words


def main() -> None:
    """Console script; exit status 0 if all is well, 1 if not, 2 for wrong usage."""
    arguments = parser().parse_args()
    try:
        status = arguments.run(arguments)
        sys.exit(asyncio.run(status) if inspect.iscoroutine(status) else status)
    except ArterialError as error:
        print(f"arterial: {error.message}", *(f"  {v.field}: {v.description}" for v in error.violations), sep="\n", file=sys.stderr)
        sys.exit(1)
    except StartError as error:
        print(f"arterial: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
