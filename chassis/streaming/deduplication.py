"""Repeats within a reach of offsets: the rule that a combiner and a batch recount share."""


class Deduplication:
    """Of one topic partition: a record is a repeat if an earlier one with the same key has an offset at most `reach` lower."""

    def __init__(self, reach: int) -> None:
        self._reach = reach
        # In order of offsets, so that what is out of reach stands first.
        self._seen: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def is_repeat(self, key: bytes, offset: int) -> bool:
        """Whether the record repeats an earlier one; either way it counts as seen. Offsets must increase."""
        earlier = self._seen.pop(key, None)
        self._seen[key] = offset
        return earlier is not None and offset - earlier <= self._reach

    def forget_below(self, offset: int) -> None:
        """Drops what no later record than `offset` can repeat."""
        limit = offset - self._reach
        for key, seen in list(self._seen.items()):
            if seen >= limit:
                break
            del self._seen[key]
