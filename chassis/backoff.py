"""How long what failed rests before it is tried again."""


def backoff_seconds(failures: int, least: float, most: float) -> float:
    """Seconds to rest after so many failures in a row: `least` after the first, twice as long after each further one, at most `most`."""
    # The exponent is bounded before it is used: 2.0 ** 2000 is no float.
    return min(most, least * 2.0 ** min(failures - 1, 30))
