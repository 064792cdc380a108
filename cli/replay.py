"""`arterial replay FILE`: the pickups of a real file as live demand, rebased to now, supply from the simulated fleet."""

import argparse
import subprocess
import sys
from pathlib import Path

from cli.stack import state_of


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    replay = commands.add_parser("replay", help="play a trip file as live demand, times rebased to now at pace 1")
    replay.add_argument("file", type=Path)
    replay.add_argument("--seconds", type=int, default=600)
    replay.set_defaults(run=run)


def command(address: str, ledger: Path, seconds: int, *, trips: Path | None, burst: bool = False, fraud: bool = False) -> list[str]:
    """The command line of the simulator."""
    words = [sys.executable, "-m", "simulator", "--address", address, "--ledger", str(ledger), "--seconds", str(seconds)]
    flags = [flag for flag, wanted in (("--burst", burst), ("--fraud", fraud)) if wanted]
    return words + (["--trips", str(trips.resolve())] if trips else []) + flags


def run(arguments: argparse.Namespace) -> int:
    """Replays until the time is over; prints progress, one JSON line a second."""
    state = state_of(arguments.data_dir)
    words = command(state["addresses"]["ingestion"], arguments.data_dir / "ledger", arguments.seconds, trips=arguments.file)
    return subprocess.run(words, check=False).returncode
