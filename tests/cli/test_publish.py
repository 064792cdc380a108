"""Records from lines of JSON, as `arterial publish` takes them."""

import json
from pathlib import Path

import pytest

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from arterial.api.types.v1.money_pb2 import Money
from chassis.errors import ArterialError, Reason
from cli.__main__ import parser
from cli.publish import encoded, run_publish


def test_every_line_that_is_no_record_is_told() -> None:
    """Whatever it is instead; and only lines end a record, not what JSON may have within a text."""
    wrong = ["5", "null", "[]", '"region"', "[" * 100_000, "{", '{"regio": "a"}']
    good = json.dumps({"region": "a\N{LINE SEPARATOR}b\x85"}, ensure_ascii=False)
    with pytest.raises(ArterialError) as caught:
        encoded("\n".join([good, *wrong]), TripEvent.DESCRIPTOR)
    assert [violation.field for violation in caught.value.violations] == [f"line {number}" for number in range(2, 9)]
    lines, (record,) = encoded(f"\r\n{good}\r\n", TripEvent.DESCRIPTOR)
    read = TripEvent.FromString(record)
    assert (lines, read.region, len(read.event_id), read.HasField("event_time")) == ([2], "a\N{LINE SEPARATOR}b\x85", 16, True)


def test_events_of_others_have_no_identity_made() -> None:
    """An adopted topic says what identifies and dates its own."""
    assert encoded('{"amountMinor": 1}', Money.DESCRIPTOR)[1]


async def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """One that is not there, and one that is no text."""
    (tmp_path / "binary").write_bytes(b"\xff")
    for name in ("absent", "binary"):
        with pytest.raises(ArterialError, match=f"{name} cannot be read") as caught:
            await run_publish(parser().parse_args(["publish", "trip_events_v2", str(tmp_path / name)]))
        assert caught.value.reason is Reason.INVALID_REQUEST
