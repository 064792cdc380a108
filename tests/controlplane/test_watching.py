"""Watch at depth: resume, bounded history, slow readers, one serialisation for all, and what is not of a watcher's concern."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis import sql, testing
from chassis.config import SqlConfig
from services.controlplane.__main__ import MIGRATIONS
from services.controlplane.resources.store import Edit, ResourceStore, Why
from services.controlplane.watch.change_feed import CHANNEL, ChangeFeed
from services.controlplane.watch.frames import Audience, Changed, Frames, Key
from services.controlplane.watch.watching import Watching
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import stubs

BATCH, RESYNC, SYNCED = pb.WatchResponse.TYPE_BATCH, pb.WatchResponse.TYPE_RESYNC, pb.WatchResponse.TYPE_SYNCED
ALL = Audience(frozenset(), "", batches=True)


def cell(name: str, region: str = "here") -> resource_pb2.Resource:
    """A resource that refers to nothing."""
    return resource_pb2.Resource(
        api_version="arterial.dev/v1",
        kind="Cell",
        metadata=resource_pb2.Metadata(name=name, owner="data-platform"),
        cell=specs_pb2.CellSpec(region=region),
    )


class Place:
    """A store, and the watching of one process over it."""

    def __init__(self, engine: AsyncEngine, watching: Watching) -> None:
        self.engine = engine
        self.store = ResourceStore(engine)
        self.watching = watching

    async def put(self, *resources: resource_pb2.Resource) -> None:
        """Writes resources."""
        await self.write([Edit((resource.kind, resource.metadata.name), resource, b"") for resource in resources])

    async def write(self, edits: list[Edit]) -> None:
        """Makes edits, over whatever there is."""
        await self.store.write(edits, Why("test", ""), await self.store.version())


class Away(ChangeFeed):
    """A database that has closed the connection, and takes no other."""

    asked = 0

    @asynccontextmanager
    async def listening(self, heard: Callable[[], None]) -> AsyncIterator[Callable[[], bool]]:
        """Fails."""
        self.asked += 1
        heard()
        raise OSError("connection refused")
        yield


async def test_a_database_that_is_away_is_asked_now_and_then() -> None:
    """Not as often as a processor can."""
    context, feed = testing.context(), Away(sql.engine(SqlConfig(url="postgresql+asyncpg://nobody@127.0.0.1:1/none")))
    polling = asyncio.create_task(Watching(feed, context).poll())
    await asyncio.sleep(0.2)
    context.stopping.set()
    await polling
    assert feed.asked == 1


@pytest.fixture
async def place(database_url: str) -> AsyncIterator[Place]:
    """Watching with a history of 5 changes, on a database of its own."""
    engine, context = sql.engine(SqlConfig(url=database_url)), testing.context()
    await sql.migrate(engine, MIGRATIONS)
    watching = Watching(ChangeFeed(engine), context, history=5)
    polling = asyncio.create_task(watching.poll())
    yield Place(engine, watching)
    context.stopping.set()
    await polling
    await engine.dispose()


@asynccontextmanager
async def watched(place: Place, **request: Any) -> AsyncIterator[AsyncIterator[bytes]]:
    """A stream as the server writes it, closed at the end."""
    stream = place.watching.watch(pb.WatchRequest(batches=True, **request))
    try:
        yield stream
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


async def following(stream: AsyncIterator[bytes]) -> pb.WatchResponse:
    """The next message."""
    return pb.WatchResponse.FromString(await asyncio.wait_for(anext(stream), 60))


async def until_synced(stream: AsyncIterator[bytes]) -> list[pb.WatchResponse]:
    """Messages until the client is up to date."""
    messages = [await following(stream)]
    while not messages[-1].synced and messages[-1].type != SYNCED:
        messages.append(await following(stream))
    return messages


async def test_changes_come_in_batches_after_everything(place: Place) -> None:
    """RESYNC, all resources in pages, SYNCED; then one batch for a change of several resources, deletions by name."""
    await place.put(*(cell(f"c{number}") for number in range(4)))
    async with watched(place) as stream:
        first = await until_synced(stream)
        assert [message.type for message in first] == [RESYNC, BATCH, SYNCED]
        assert [resource.metadata.name for resource in first[1].changed] == ["c0", "c1", "c2", "c3"]
        assert (first[0].resource_version, first[1].resource_version, first[2].resource_version) == (0, 0, 4)
        await place.put(cell("c0", "there"), cell("c9"))
        changed = await following(stream)
        assert [(resource.metadata.name, resource.cell.region) for resource in changed.changed] == [("c0", "there"), ("c9", "here")]
        assert changed.synced and changed.resource_version == 6
        await place.write([Edit(("Cell", "c1"), None, b"")])
        removed = await following(stream)
        assert [(gone.kind, gone.metadata.name) for gone in removed.removed] == [("Cell", "c1")]


async def test_a_token_is_resumed_and_one_that_the_history_forgot_is_not(place: Place) -> None:
    """The history holds five changes; a token of another database's future is none either."""
    await place.put(*(cell(f"c{number}") for number in range(8)))
    async with watched(place, resource_version=3) as stream:
        assert [resource.metadata.name for resource in (await following(stream)).changed] == ["c3", "c4", "c5", "c6", "c7"]
    for unknown in (2, 9):
        async with watched(place, resource_version=unknown) as stream:
            assert (await following(stream)).type == RESYNC


async def test_who_reads_too_slowly_begins_again(place: Place) -> None:
    """A reader that stays away for more changes than the history holds gets everything; one that does not gets the last of each."""
    await place.put(cell("a"), cell("b"))
    async with watched(place) as slow, watched(place) as slower:
        await until_synced(slow), await until_synced(slower)
        for number in range(4):
            await place.put(cell("a", f"r{number}"))
        await place.watching.fresh()
        caught_up = await until_synced(slow)
        assert [[resource.cell.region for resource in message.changed] for message in caught_up][-1] == ["r3"]
        for number in range(4):
            await place.put(cell("a", f"s{number}"))
        await place.watching.fresh()
        again = await until_synced(slower)
        assert [message.type for message in again] == [RESYNC, BATCH, SYNCED] and again[1].changed[0].cell.region == "s3"


async def test_all_watchers_are_sent_the_same_bytes(place: Place) -> None:
    """A change is serialised once, whoever watches from wherever it is up to date."""
    async with watched(place) as one, watched(place, cell="eu") as other:
        await until_synced(one), await until_synced(other)
        await place.put(cell("a"))
        assert await anext(one) is await anext(other)


async def test_what_does_not_concern_a_watcher_does_not_wake_it(place: Place) -> None:
    """The change of another kind is passed over; the next one of its own kind names both as seen."""
    await place.put(cell("a"))
    async with watched(place, kinds=["Topic"]) as stream:
        assert [message.type for message in await until_synced(stream)] == [RESYNC, SYNCED]
        waiting = asyncio.ensure_future(anext(stream))
        for number in range(3):
            await place.put(cell("a", f"r{number}"))
            await place.watching.fresh()
        assert not waiting.done()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting


@pytest.mark.parametrize("which", [f"LISTEN%{CHANNEL}%", "%"])
async def test_lost_connections_to_the_database_are_made_anew(place: Place, which: str) -> None:
    """The backend that listens, or every one, is ended by the database; the next change still arrives."""
    async with watched(place) as stream:
        await until_synced(stream)
        ended = sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE :which AND pid <> pg_backend_pid()"
        )
        async with place.engine.begin() as connection:
            assert True in (await connection.execute(ended, {"which": which})).scalars().all()
        await place.put(cell("a"))
        assert [resource.metadata.name for resource in (await following(stream)).changed] == ["a"]


async def test_the_wire_carries_what_was_serialised_before(shared_plane: ControlPlane) -> None:
    """A client reads batches as any message; without asking for them it reads changes one by one."""
    async with stubs(shared_plane) as to:
        kinds: dict[bool, list[int]] = {}
        for batches in (True, False):
            names = set()
            async for message in to.control.Watch(pb.WatchRequest(kinds=["Topic"], batches=batches)):
                kinds.setdefault(batches, []).append(message.type)
                names |= {resource.metadata.name for resource in (*message.changed, message.resource)}
                if message.type == SYNCED:
                    break
            assert "trip_events_v2" in names
    assert set(kinds[True]) == {RESYNC, BATCH, SYNCED} and set(kinds[False]) == {RESYNC, pb.WatchResponse.TYPE_PUT, SYNCED}


changes = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3)), max_size=30)


@given(changes, st.integers(0, 30))
def test_resuming_anywhere_gives_the_newest_state(history: list[tuple[str, int]], start: int) -> None:
    """Whatever a client held at a position, what comes after it makes its state the current one, or it is told to begin anew."""
    frames, states = Frames(history=8), [dict[str, bytes]()]
    for version, (name, value) in enumerate(history, 1):
        body = cell(name, str(value)).SerializeToString() if value else None
        frames.apply([Changed(version, ("Cell", name), body)], {})
        states.append({key: held for key, held in (states[-1] | {name: body}).items() if held is not None})
    start = min(start, len(history))
    held = dict(states[start])
    assert frames.reaches(start) == (start >= len(history) - 8)
    if not frames.reaches(start):
        return
    for message in frames.since(ALL, start).messages:
        batch = pb.WatchResponse.FromString(message)
        held |= {resource.metadata.name: resource.SerializeToString() for resource in batch.changed}
        for gone in batch.removed:
            held.pop(gone.metadata.name, None)
    assert held == states[-1]


def test_pages_end_at_their_size_and_leave_nothing_out() -> None:
    """Resources of 30 KB each come at most three in a message, in order."""
    frames = Frames()
    names = [f"c{number:02d}" for number in range(10)]
    bodies: list[tuple[Key, bytes]] = [(("Cell", name), cell(name, "x" * 30_000).SerializeToString()) for name in names]
    frames.reset(bodies, (), (10, 10), {})
    found: list[list[str]] = []
    after: Key | None = None
    while not found or after is not None:
        page = frames.page(ALL, after)
        found += [[resource.metadata.name for resource in pb.WatchResponse.FromString(message).changed] for message in page.messages]
        after = page.after
    assert [name for part in found for name in part] == names and max(map(len, found)) == 3


async def test_another_history_under_the_same_versions_is_noticed(place: Place) -> None:
    """After a restore, versions that a watcher has seen say something else: it is sent everything."""
    await place.put(cell("a", "r1"), cell("a", "r2"))
    async with watched(place) as stream:
        await until_synced(stream)
        async with place.engine.begin() as connection:
            await connection.execute(sa.text("DELETE FROM changes WHERE version = 2"))
            await connection.execute(sa.text("UPDATE changes SET at = at - interval '1 day'"))
        await place.put(cell("b", "restored"), cell("b", "again"))
        await place.watching.fresh()
        again = await until_synced(stream)
        assert again[0].type == RESYNC and ["again"] in [
            [each.cell.region for each in message.changed if each.metadata.name == "b"] for message in again
        ]
