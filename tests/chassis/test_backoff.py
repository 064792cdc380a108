"""How long what failed rests."""

from chassis.backoff import backoff_seconds


def test_pauses_double_up_to_the_longest_however_often_it_fails() -> None:
    """Also after so many failures that no float has the power."""
    assert [backoff_seconds(failures, 1.0, 60.0) for failures in (1, 2, 3, 7, 5000)] == [1.0, 2.0, 4.0, 60.0, 60.0]
