"""Events per second and core of the simulated city, encoded, against messages built one by one."""

import time

from arterial.api.events.v1.gps_ping_pb2 import GpsPing
from bench.result import cpu_seconds, report
from simulator.city import City
from simulator.demand import Rhythm
from simulator.parameters import Parameters

SECONDS, START = 30, 1_767_279_600
BASELINE_EVENTS = 100_000


def main() -> None:
    """A large fleet for SECONDS of its time."""
    parameters = Parameters(requests_per_second=150, drivers=40_000)
    city = City(parameters, Rhythm(parameters), seed=1)
    cpu, wall, events = cpu_seconds(), time.monotonic(), 0
    for second in range(START, START + SECONDS):
        events += sum(len(found.encode(topic)) for topic, found in city.second(second).items())
    used, passed = cpu_seconds() - cpu, time.monotonic() - wall
    report("simulate", events / used, "events/s per core", baseline=("one message at a time", one_by_one()), wall=events / passed)


def one_by_one() -> float:
    """The same kind of message, built and serialised one at a time."""
    cpu = cpu_seconds()
    for number in range(BASELINE_EVENTS):
        ping = GpsPing(event_id=number.to_bytes(16, "big"), region="us-east", city_id=1, sequence=number, producer="simulator")
        ping.producer_version, ping.driver_id, ping.trip_id = "1", f"driver-{number}", f"trip-{number}"
        ping.event_time.FromMicroseconds(START * 1_000_000 + number)
        ping.position.latitude, ping.position.longitude, ping.cell = 40.7, -73.9, 0x892A100D2DFFFFF
        ping.speed_mps, ping.heading_degrees, ping.accuracy_m, ping.driver_state = 8.0, 90.0, 5.0, GpsPing.DRIVER_STATE_ON_TRIP
        ping.SerializeToString()
    return BASELINE_EVENTS / (cpu_seconds() - cpu)


if __name__ == "__main__":
    main()
