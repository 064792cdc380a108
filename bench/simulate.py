"""Events per second and core of the simulated city, encoded, against messages built one by one."""

import time

import pyarrow as pa
from google.protobuf import message_factory

from bench.result import cpu_seconds, report
from simulator.city import City
from simulator.columns import schema_of
from simulator.demand import Rhythm
from simulator.parameters import Parameters

SECONDS, START = 30, 1_767_279_600
BASELINE_SECONDS = 5


def main() -> None:
    """A large fleet for SECONDS of its time."""
    parameters = Parameters(requests_per_second=150, drivers=40_000)
    city = City(parameters, Rhythm(parameters), seed=1)
    cpu, wall, events = cpu_seconds(), time.monotonic(), 0
    for second in range(START, START + SECONDS):
        events += sum(len(found.encode(topic)) for topic, found in city.second(second).items())
    used, passed = cpu_seconds() - cpu, time.monotonic() - wall
    report("simulate", events / used, "events/s per core", baseline=("one message at a time", one_by_one(parameters)), wall=events / passed)


def one_by_one(parameters: Parameters) -> float:
    """The same simulation, its messages built and serialised one at a time."""
    city = City(parameters, Rhythm(parameters), seed=1)
    cpu, events = cpu_seconds(), 0
    for second in range(START, START + BASELINE_SECONDS):
        for topic, found in city.second(second).items():
            message = message_factory.GetMessageClass(schema_of(topic).descriptor)
            for row in pa.table(found.columns).to_pylist():
                message(**{name: value for name, value in row.items() if value is not None}).SerializeToString()
            events += found.count
    return events / (cpu_seconds() - cpu)


if __name__ == "__main__":
    main()
