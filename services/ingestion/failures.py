"""How often what failed is tried again."""

from dataclasses import dataclass

from chassis.backoff import backoff_seconds

# A follower is made anew after an error: its tables are opened again, and its progress read again. What fails for ever, such as
# an undeclared removal, is tried ever more rarely, and never holds up the others.
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0


@dataclass
class Failures:
    """Failures of a follower in a row."""

    count: int = 0
    retry_at: float = 0.0
    why: str = ""

    def note(self, now: float, error: Exception) -> float:
        """Notes a failure; the seconds until the next try."""
        self.count += 1
        seconds = backoff_seconds(self.count, MIN_RETRY_SECONDS, MAX_RETRY_SECONDS)
        self.retry_at, self.why = now + seconds, f"{type(error).__name__}: {error}"
        return seconds
