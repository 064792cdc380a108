"""How far lake tables that follow others are, down to raw: a declared table has of it what its sources had at its versions of them."""

from collections.abc import Mapping, Sequence

from arterial.api.controlplane.v1 import specs_pb2
from chassis.config import LakeConfig
from chassis.desired import Desired
from services.ingestion.curated import has_trips
from services.ingestion.derivation import LAKE, ZONE, Derivation
from services.ingestion.raw import table_name
from services.ingestion.rawlog import Position
from services.ingestion.trips import TRIPS

# Names within the lake: of a table, those that it follows directly.
Follows = Mapping[str, Sequence[str]]


def follows_of(desired: Desired) -> Follows:
    """Tables of the lake that follow raw tables or one another."""
    found: dict[str, list[str]] = {}
    for topic in desired.topics.values():
        taken = desired.pipeline(specs_pb2.PIPELINE_ROLE_RAW, topic.name) and desired.pipeline(specs_pb2.PIPELINE_ROLE_CURATED, topic.name)
        if topic.curated and taken:
            found.setdefault(f"{ZONE}{topic.name}", []).append(table_name(topic.name))
            if has_trips(topic):
                found.setdefault(TRIPS, []).append(table_name(topic.name))
    for name, spec in desired.curated_tables.items():
        derivation = Derivation.of(name, spec)
        found[derivation.table] = [source.removeprefix(LAKE) for source in derivation.sources if source.startswith(LAKE)]
    return found


def raw_tables(follows: Follows, name: str) -> set[str]:
    """The raw tables that a table is made from, near or far."""
    direct = follows.get(name, ())
    return {source for source in direct if source not in follows}.union(*(raw_tables(follows, source) for source in direct))


class Positions:
    """Positions of these tables, kept up to date from their logs. Blocks: use it in a thread."""

    def __init__(self, lake: LakeConfig) -> None:
        self._lake = lake
        self._known: dict[tuple[str, tuple[str, ...]], Position] = {}

    def keep_only(self, follows: Follows) -> None:
        """Forgets tables that are not made any more: should they be again, they may be others, of the same name."""
        self._known = {key: position for key, position in self._known.items() if tuple(follows.get(key[0], ())) == key[1]}

    def of(self, follows: Follows, name: str) -> tuple[int, Mapping[str, int]] | None:
        """Version of a table, and the versions of raw tables that it has (-1: nothing); None if that is not known. Raises as logs do."""
        position = self._refreshed(follows, name)
        found = self._raw(follows, name, position.version)
        return None if found is None else (position.version, found)

    def _raw(self, follows: Follows, name: str, version: int) -> Mapping[str, int] | None:
        progress = self._refreshed(follows, name).at(version)
        if progress is None:
            return None
        found: dict[str, int] = {}
        for source in follows[name]:
            done = progress.get(source, -1)
            inner = self._raw(follows, source, done) if source in follows else {source: done}
            if inner is None:
                return None
            for raw, taken in inner.items():
                found[raw] = min(taken, found.get(raw, taken))
        return found

    def _refreshed(self, follows: Follows, name: str) -> Position:
        key = (name, tuple(follows[name]))
        position = self._known.setdefault(key, Position(self._lake, *key))
        try:
            position.refresh()
        except Exception:
            del self._known[key]
            raise
        return position
