"""Plays a city against a running ingestion service: `python -m simulator --address HOST:PORT --ledger FOLDER`."""

import argparse
import asyncio
import dataclasses
import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from chassis.tripfiles import TripFile
from simulator.city import City
from simulator.demand import Demand, Replay, Rhythm, WithBurst
from simulator.fraud import Fraudsters, day_of_fraud
from simulator.parameters import CONCERT, Parameters
from simulator.producer import Ledger, Producer

# Simulated before the start, unpublished, so that trips are under way when the show begins.
WARM_UP_SECONDS = 600


def main() -> None:
    """Publishes until the time is over or a signal comes; prints progress as one JSON line a second."""
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of the ingestion service")
    parser.add_argument("--ledger", type=Path, required=True, help="folder for the ledger of acknowledged ids")
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--trips", type=Path, help="a trip file whose pickups are the demand")
    parser.add_argument(
        "--fraud", action="store_true", help="fraudsters are among the riders; who they are is written to fraud.json of the ledger"
    )
    parser.add_argument("--burst", action="store_true", help="a concert lets out shortly after the start")
    asyncio.run(_run(parser.parse_args()))


async def _run(arguments: argparse.Namespace) -> None:
    parameters, now = Parameters(), int(time.time())
    file = TripFile(arguments.trips) if arguments.trips else None
    warm_start = now - WARM_UP_SECONDS
    demand: Demand = Rhythm(parameters) if file is None else Replay(file, now, run=now % 65536)
    demand = WithBurst(demand, CONCERT, now) if arguments.burst else demand
    fraudsters = _fraudsters(arguments, now) if arguments.fraud else None
    city = City(parameters, demand, arguments.seed, run=str(now), fraudsters=fraudsters)
    for second in range(warm_start, now):
        city.second(second)
    producer = Producer(city, arguments.address, Ledger(arguments.ledger))
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    reporting = asyncio.create_task(_report(producer))
    await producer.run(arguments.seconds, stopping)
    reporting.cancel()
    with suppress(asyncio.CancelledError):
        await reporting
    print(json.dumps(dataclasses.asdict(producer.progress)), flush=True)
    await producer.close()


def _fraudsters(arguments: argparse.Namespace, now: int) -> Fraudsters:
    """At least one of each kind within the time of the show."""
    random = np.random.default_rng(arguments.seed)
    parameters = Parameters()
    payments_per_day = parameters.requests_per_second * arguments.seconds
    fraud = day_of_fraud(parameters.city_id, payments_per_day, now * 1_000_000, random, run=str(now), seconds=arguments.seconds)
    arguments.ledger.mkdir(parents=True, exist_ok=True)
    (arguments.ledger / "fraud.json").write_text(json.dumps(fraud.scenario_of))
    return Fraudsters(fraud, random)


async def _report(producer: Producer) -> None:
    while True:
        print(json.dumps(dataclasses.asdict(producer.progress)), flush=True)
        await asyncio.sleep(1)


if __name__ == "__main__":
    main()
