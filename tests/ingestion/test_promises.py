"""Whether tables keep their promises: freshness and completeness of days, from blocks of raw."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.config import CellConfig, LakeConfig
from chassis.lake import drop
from services.ingestion.holdings import DAY_SECONDS, Block, Span, block, day_of, folded, seconds
from services.ingestion.promises import Aspect, Finding, Known, Promise, judge
from services.ingestion.rawlog import Position, RawLog
from tests.ingestion.raw_tables import KAFKA_US, TOPIC, feeder

TODAY = 20_000
MIDNIGHT = TODAY * DAY_SECONDS
NOON = MIDNIGHT + 43_200.0
PROMISE = Promise(300, 99.9)
# Kafka had nothing that raw lacks.
NOTHING: Mapping[int, int] = {}


def arrived(time: float, rows: int = 1, version: int = 1, *, live: bool = True) -> Block:
    """Rows of a moment, which came at once."""
    return block(version, rows, day_of(time), Span(time, time, time), live=live)


def told(known: Known, now: float, promise: Promise = PROMISE) -> dict[tuple[int, Aspect], Finding]:
    """Findings by days before today and aspect."""
    return {(TODAY - finding.day, finding.aspect): finding for finding in judge(known, promise, now)}


@pytest.mark.parametrize(("age", "kept"), [(0, True), (300, True), (301, False), (100_000, False), (-50, True)])
def test_today_is_as_fresh_as_the_newest_row(age: float, kept: bool) -> None:
    """Wherever that row lies; a clock that is ahead is no merit."""
    found = told(Known([arrived(NOON - 200_000), arrived(NOON - age)]), NOON)[0, Aspect.FRESHNESS]
    assert (found.kept, found.value) == (kept, max(0, age))


def test_the_reason_says_what_is_known_and_what_is_promised_and_does_not_change_with_the_time() -> None:
    """It is told once while nothing comes."""
    known = Known([arrived(NOON - 412)])
    first, second = (told(known, NOON + later)[0, Aspect.FRESHNESS] for later in (0, 60))
    assert first.reason == second.reason == "newest row is of 2024-10-04 11:53:08; at most 300 s are promised"
    assert (first.value, second.value) == (412, 472)


def test_an_event_is_no_later_than_its_arrival() -> None:
    """One clock that is ten hours ahead makes nothing fresh."""
    ahead = block(1, 1, TODAY, Span(NOON - 1000, NOON + 36_000, NOON - 900), live=True)
    assert told(Known([ahead]), NOON)[0, Aspect.FRESHNESS].value == 900


@pytest.mark.parametrize(("short", "kept"), [(1, True), (300, True), (301, False)])
def test_a_day_that_has_ended_is_judged_by_how_far_it_reaches(short: float, kept: bool) -> None:
    """What comes after its end does not count for it, unless it is of that day."""
    blocks = [arrived(MIDNIGHT - short), arrived(NOON)]
    found = told(Known(blocks), NOON)[1, Aspect.FRESHNESS]
    assert (found.kept, found.value) == (kept, short)
    late = block(2, 1, TODAY, Span(MIDNIGHT - 1, NOON, NOON), live=True)
    assert told(Known([*blocks, late]), NOON)[1, Aspect.FRESHNESS].value == 1


def test_a_day_without_a_row_is_not_fresh_once_the_topic_had_some() -> None:
    """Two days are judged; of days before the first record nothing is said."""
    found = told(Known([arrived(MIDNIGHT - DAY_SECONDS - 10)]), NOON)
    assert (found[1, Aspect.FRESHNESS].kept, found[1, Aspect.FRESHNESS].value) == (False, DAY_SECONDS)
    assert found[2, Aspect.FRESHNESS].kept and (3, Aspect.FRESHNESS) not in found
    assert set(told(Known([arrived(NOON)]), NOON)) == {(0, Aspect.FRESHNESS)}


def test_history_from_files_is_not_stale() -> None:
    """Also where records of today have begun; a file that fills a day of a topic that lived by then counts for it."""
    history = [block(1, 1000, TODAY, Span(MIDNIGHT - 9 * DAY_SECONDS, MIDNIGHT - 5000, NOON), live=False)]
    assert not [key for key in told(Known(history), NOON) if key[1] is Aspect.FRESHNESS]
    assert set(told(Known([*history, arrived(NOON)]), NOON)) == {(0, Aspect.FRESHNESS)}
    broke_off = arrived(MIDNIGHT - 40_000)
    assert not told(Known([broke_off, *history]), NOON)[1, Aspect.FRESHNESS].kept
    filled = arrived(MIDNIGHT - 10, live=False)
    assert told(Known([broke_off, *history, filled]), NOON)[1, Aspect.FRESHNESS].kept


def test_a_follower_that_has_nothing_is_as_old_as_what_waits_for_it() -> None:
    """It is not late before the first row is."""
    for age, kept in ((10, True), (301, False)):
        found = told(Known([], [arrived(NOON - age)]), NOON)[0, Aspect.FRESHNESS]
        assert (found.kept, found.value, found.reason.partition(";")[0]) == (kept, age, "it has no row yet")


@pytest.mark.parametrize(
    ("there", "waiting", "unread", "value", "kept"),
    [
        (1000, 0, 0, 100.0, True),
        (999, 1, 0, 99.9, True),
        (998, 1, 1, 99.8, False),
        (0, 0, 5, 0.0, False),
        (0, 0, 0, None, None),
    ],
)
def test_a_day_is_complete_by_what_is_known_of(there: int, waiting: int, unread: int, value: float | None, kept: bool | None) -> None:
    """Rows that are there, against those that wait in raw and in Kafka; of a day that nothing is known of nothing is said."""
    known = Known([arrived(MIDNIGHT - 9, there)], [arrived(MIDNIGHT - 9, waiting, 2)], {TODAY - 1: unread})
    found = told(known, NOON).get((1, Aspect.COMPLETENESS))
    assert (found.value if found else None, found.kept if found else None) == (value, kept)


def test_completeness_says_what_waits_where() -> None:
    """In words."""
    known = Known([arrived(MIDNIGHT - 9, 1190)], [arrived(MIDNIGHT - 9, 8, 2)], {TODAY - 1: 2})
    reason = told(known, NOON)[1, Aspect.COMPLETENESS].reason
    assert reason == "1,190 of 1,200 rows are there, 8 wait in raw, 2 wait in Kafka; 99.9 % are promised"


def test_completeness_is_told_once_the_last_rows_of_the_day_are_due() -> None:
    """Not of today, nor at its very end, nor while Kafka does not answer."""
    blocks = [arrived(MIDNIGHT - 9), arrived(MIDNIGHT + 9)]
    days = {key[0] for key in told(Known(blocks, in_kafka=NOTHING), MIDNIGHT + 299) if key[1] is Aspect.COMPLETENESS}
    assert not days
    assert (1, Aspect.COMPLETENESS) in told(Known(blocks, in_kafka=NOTHING), MIDNIGHT + 300)
    assert (1, Aspect.COMPLETENESS) not in told(Known(blocks), NOON)


def test_rows_of_a_file_are_spread_over_its_days() -> None:
    """A file of ten days that waits is a tenth of its rows for each of them."""
    span = Span(MIDNIGHT - 10 * DAY_SECONDS, MIDNIGHT - 1, NOON)
    waiting = block(2, 1000, TODAY, span, live=False)
    found = told(Known([arrived(MIDNIGHT - 9, 300)], [waiting], NOTHING), NOON)[1, Aspect.COMPLETENESS]
    assert found.value == 75.0


TIMES = st.integers(MIDNIGHT - 4 * DAY_SECONDS, MIDNIGHT + 43_200)
BLOCKS = st.builds(arrived, TIMES, st.integers(0, 50), st.integers(1, 9), live=st.booleans())


@given(st.lists(BLOCKS, max_size=12), st.integers(0, 9), st.integers(0, 9))
def test_blocks_that_were_folded_say_the_same(held: list[Block], one: int, other: int) -> None:
    """Of a follower that took at least what was folded, in any order of folding."""
    base, taken = sorted((one, other))
    again = folded(folded(held, base // 2), base)

    def known(blocks: list[Block]) -> Known:
        return Known([b for b in blocks if b.version <= taken], [b for b in blocks if b.version > taken], NOTHING)

    assert judge(known(held), PROMISE, NOON) == judge(known(again), PROMISE, NOON)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("2023-11-14", 1_699_920_000.0),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000.5),
        ("+12345-01-01T00:00:00Z", 327_403_382_400.0),
        ("soon", None),
    ],
)
def test_times_of_the_log_are_read(text: str, expected: float | None) -> None:
    """Of any year."""
    assert seconds(text) == expected


def test_a_log_that_is_read_on_says_what_a_snapshot_says(lake_config: LakeConfig) -> None:
    """Rows by day, dead ones left out, compaction without effect; and a reader that begins later, at what its followers have taken."""
    raw, cell = feeder(lake_config), CellConfig(kafka_cluster="k")
    first = RawLog(cell, lake_config, TOPIC)
    first.refresh([])
    assert first.blocks == [] and first.version == 0
    taken = raw.append([(b"a", KAFKA_US, KAFKA_US), (b"b", KAFKA_US - 5_000_000, KAFKA_US)])
    first.refresh([-1])
    raw.append_dead()
    last = raw.append([(b"c", KAFKA_US + 7_000_000, KAFKA_US + 9_000_000)])
    raw.table.refresh()
    raw.table.handle.optimize.compact()
    first.refresh([taken])
    second = RawLog(cell, lake_config, TOPIC)
    second.refresh([taken])
    for log in (first, second):
        assert [(found.version, found.rows, found.live) for found in log.blocks] == [(taken, 2, True), (last, 1, True)]
        assert log.ends == {0: 4}
        assert [max(found.reaches.values()) for found in log.blocks] == [1_700_000_000.0, 1_700_000_007.0]
    second.refresh([taken, -1])
    second.refresh([last])
    assert [(found.version, found.rows) for found in second.blocks] == [(last, 3)]
    second.refresh([taken])
    assert [found.rows for found in second.blocks] == [2, 1], "a follower that begins again is behind once more"


def test_a_table_that_was_dropped_and_made_again_is_another(lake_config: LakeConfig) -> None:
    """Nothing of the former is left, also where the new one has as many versions some day."""
    raw, log = feeder(lake_config), RawLog(CellConfig(kafka_cluster="k"), lake_config, TOPIC)
    position = Position(lake_config, "raw/trip_events_v2", ["k/trip_events_v2#0/0"])
    for _ in range(3):
        last = raw.append([(b"a", KAFKA_US, KAFKA_US)])
    log.refresh([last])
    position.refresh()
    drop(lake_config, "raw/trip_events_v2")
    log.refresh([])
    position.refresh()
    assert (log.blocks, log.version, log.ends) == ([], -1, {0: None}) and (position.version, position.progress) == (-1, {})
    feeder(lake_config).append([(b"a", KAFKA_US, KAFKA_US)])
    log.refresh([])
    position.refresh()
    assert [found.rows for found in log.blocks] == [1] and (log.version, log.ends, position.version) == (1, {0: 1}, 1)


def test_a_position_follows_its_table(lake_config: LakeConfig) -> None:
    """From when it is there."""
    position = Position(lake_config, "raw/trip_events_v2", ["k/trip_events_v2#0/0"])
    position.refresh()
    assert (position.version, position.progress) == (-1, {})
    raw = feeder(lake_config)
    for end in (1, 2):
        version = raw.append([(b"a", KAFKA_US, KAFKA_US)])
        position.refresh()
        assert (position.version, position.progress) == (version, {"k/trip_events_v2#0/0": end})
