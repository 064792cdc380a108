"""Wire format, partitioning and judgement of records."""

import numpy as np
import pyarrow as pa
import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.judge import judge
from chassis.partitioning import partition_of, partitions_of
from chassis.topics import Topic
from chassis.wire import FrameError, Schemas, frame, split
from tests.events import trip_event

TOPIC = Topic("trip_events_v2", "arterial.api.events.v1.TripEvent", "city_id")
HOME = partition_of(b"1", 16)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=50), st.integers(1, 64))
def test_partitions_are_those_of_kafkas_own_hash(keys: list[str], partitions: int) -> None:
    """A column at a time gives what the client gives key by key."""
    expected = [(murmur2(key.encode()) & 0x7FFFFFFF) % partitions for key in keys]
    assert partitions_of(pa.array(keys, pa.string()), partitions).tolist() == expected


@given(st.integers(0, 2**31 - 1), st.binary(max_size=50))
def test_framing_is_undone(schema_id: int, payload: bytes) -> None:
    """What is framed is split into the same parts."""
    assert split(frame(schema_id, payload)) == (schema_id, (0,), payload)


@given(st.binary(max_size=8))
def test_splitting_ends_with_parts_or_a_frame_error(value: bytes) -> None:
    """Whatever the bytes are."""
    try:
        split(value)
    except FrameError:
        return


def test_readers_accept_any_message_index() -> None:
    """Confluent's list form of index [0] and a deeper index are both read."""
    assert split(b"\0\0\0\0\1\2\0xyz") == (1, (0,), b"xyz")
    assert split(b"\0\0\0\0\1\4\2\4xyz") == (1, (1, 2), b"xyz")


BAD = {
    "garbage": (b"garbage", "undecodable"),
    "no message": (frame(1, b"\xff\xff\xff"), "undecodable"),
    "tombstone": (None, "tombstone"),
    "unknown schema": (frame(4711, b""), "unknown_schema"),
    "no time": (frame(1, TripEvent(event_id=b"x" * 16, city_id=1).SerializeToString()), "unidentified"),
    "short id": (frame(1, TripEvent(event_id=b"x", city_id=1).SerializeToString()), "unidentified"),
    "wrong partition": (frame(1, trip_event(city_id=2).SerializeToString()), "misrouted"),
}


@given(st.lists(st.sampled_from(["good", *BAD]), max_size=40))
def test_each_record_is_judged_alone(kinds: list[str]) -> None:
    """Good and bad in any mixture: every bad one is named with its reason, and no good one suffers."""
    good = frame(1, trip_event().SerializeToString())
    values = [good if kind == "good" else BAD[kind][0] for kind in kinds]
    judged = judge(TOPIC, Schemas(), values, np.full(len(values), HOME, np.int32))
    assert judged.good.tolist() == [index for index, kind in enumerate(kinds) if kind == "good"]
    assert {dead.index: dead.reason for dead in judged.dead} == {i: BAD[kind][1] for i, kind in enumerate(kinds) if kind != "good"}
    assert judged.columns.num_rows == len(judged.good)


def test_times_outside_the_calendar_cannot_be_stored() -> None:
    """They would be stored as another time."""
    event = trip_event()
    event.pickup_time.seconds = 2**60
    judged = judge(TOPIC, Schemas(), [frame(1, event.SerializeToString())], np.array([HOME], np.int32))
    assert [dead.reason for dead in judged.dead] == ["unstorable"]


def test_a_policy_may_wait_for_schemas() -> None:
    """Then an unknown schema is neither good nor dead."""
    topic = Topic("t", TOPIC.message, "city_id", wait_for_schema=True)
    judged = judge(topic, Schemas(), [frame(4711, b"x")], np.array([HOME], np.int32))
    assert (judged.waiting, judged.dead) == ([0], [])


def test_columns_hold_what_the_message_says() -> None:
    """Nested messages are flattened, absent ones null, microseconds kept."""
    event = trip_event()
    row = judge(TOPIC, Schemas(), [frame(1, event.SerializeToString())], np.array([HOME], np.int32)).columns.to_pylist()[0]
    assert row["pickup_position_latitude"] == pytest.approx(40.75)
    assert (row["fare_amount_minor"], row["fare_currency_code"], row["dropoff_position_latitude"]) == (1250, "USD", None)
    assert int(row["event_time"].timestamp() * 1e6) == pytest.approx(event.event_time.ToMicroseconds(), abs=1)
