"""What watchers are sent: every resource serialised once, whoever watches, and which resources changed lately.

A watcher holds nothing but a position in the versions; what comes next for it is looked up here when it is ready for more. So a slow
reader costs no memory beyond the message in its hands, and one that fell off the history begins again.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2

Key = tuple[str, str]
# Changes that a watcher may fall behind before it gets everything again.
HISTORY = 10_000
# A message of many resources ends here: it is what a slow reader holds of the server's memory.
BATCH_BYTES = 64 * 1024
# Messages that are kept for the next watcher that wants the same, at BATCH_BYTES each.
KEPT_PARTS = 256
# Tags of WatchResponse's fields on the wire (field number and wire type 2): protobuf is written here by joining what is written already.
_RESOURCE, _CHANGED, _REMOVED = b"\x12", b"\x22", b"\x2a"


@dataclass(frozen=True)
class Audience:
    """What a watcher is shown: these kinds (all if empty), as its cell may see them; in batches or one by one."""

    kinds: frozenset[str]
    cell: str
    batches: bool


@dataclass(frozen=True)
class Changed:
    """A change; `body` is the serialised resource, None where it was deleted."""

    version: int
    key: Key
    body: bytes | None


@dataclass(frozen=True)
class Held:
    """What not all cells see alike.

    While a change is rolled out, cells that are not among `shown` (None: all are) still see the former body (None: nothing). Cells that
    pinned another version see that one, by cell, whatever is rolled out.
    """

    former: bytes | None
    shown: frozenset[str] | None
    pinned: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Messages for a watcher, and where it is after them."""

    messages: tuple[bytes, ...]
    position: int
    # True if the messages say themselves that the watcher is up to date.
    synced: bool = False
    # The last resource of a page of a resync; None at its end.
    after: Key | None = None


class Frames:
    """All resources of one process's watchers, and the recent history. Not thread-safe: it lives on the loop."""

    def __init__(self, history: int = HISTORY) -> None:
        self.history = history
        self.version = 0
        # Grows with every reset: what a watcher holds of an earlier one says nothing any more.
        self.epoch = 0
        self._floor = 0
        self._frames: dict[Key, bytes] = {}
        self._keys: list[Key] = []
        # These, and what is gone in some cells only.
        self._listed = self._keys
        self._recent: deque[tuple[int, Key]] = deque()
        self._held: Mapping[Key, Held] = {}
        self._parts: dict[tuple[Audience, int, Key | None], Part] = {}

    def reset(
        self, bodies: Iterable[tuple[Key, bytes]], recent: Iterable[tuple[int, Key]], span: tuple[int, int], held: Mapping[Key, Held]
    ) -> None:
        """Begins anew with all resources, the recent changes in order, and what is being rolled out; `span` is floor and version."""
        self._frames = {key: _framed(body) for key, body in bodies}
        self._keys = sorted(self._frames)
        self._recent = deque(recent)
        self._floor, self.version = span
        self.epoch += 1
        self._see(held)

    def apply(self, changes: Iterable[Changed], held: Mapping[Key, Held]) -> None:
        """Takes in changes, in order, and which of all are being rolled out now."""
        for change in changes:
            if change.body is None:
                if self._frames.pop(change.key, None) is not None:
                    self._keys.remove(change.key)
            else:
                if change.key not in self._frames:
                    insort(self._keys, change.key)
                self._frames[change.key] = _framed(change.body)
            self._recent.append((change.version, change.key))
            self.version = change.version
        while len(self._recent) > self.history:
            self._floor = self._recent.popleft()[0]
        self._see(held)

    def _see(self, held: Mapping[Key, Held]) -> None:
        """What is shown otherwise now; of what is gone some cells may still see the former body."""
        self._held = held
        gone = [key for key in held if key not in self._frames]
        self._listed = sorted([*self._keys, *gone]) if gone else self._keys
        self._parts.clear()

    def reaches(self, position: int) -> bool:
        """True if a watcher can go on from there; a position of another database's future cannot be gone on from either."""
        return self._floor <= position <= self.version

    def since(self, audience: Audience, position: int) -> Part:
        """The next messages after a position, none if nothing of the audience's changed; a batch ends at BATCH_BYTES."""
        return self._kept((audience, position, None), lambda shown: self._since(shown, position))

    def page(self, audience: Audience, after: Key | None) -> Part:
        """The resources after one of them in order, as far as a message goes; Part.after None means that these were the last."""
        return self._kept((audience, -1, after), lambda shown: self._page(shown, after))

    def _kept(self, wanted: tuple[Audience, int, Key | None], make: Callable[[Audience], Part]) -> Part:
        # While nothing is rolled out or pinned all cells see the same, and share it.
        audience = wanted[0] if self._held else replace(wanted[0], cell="")
        key = (audience, *wanted[1:])
        part = self._parts.get(key)
        if part is None:
            if len(self._parts) >= KEPT_PARTS:
                self._parts.clear()
            part = self._parts[key] = make(audience)
        return part

    def _since(self, audience: Audience, position: int) -> Part:
        latest: dict[Key, int] = {}
        for version, key in reversed(self._recent):
            if version <= position:
                break
            if key not in latest and (not audience.kinds or key[0] in audience.kinds):
                latest[key] = version
        taken, size = [], 0
        for key, version in reversed(latest.items()):
            taken.append((version, key))
            size += len(self._shown(key, audience.cell) or b"")
            if size >= BATCH_BYTES:
                break
        whole = len(taken) == len(latest)
        end = self.version if whole or not taken else taken[-1][0]
        if not audience.batches:
            return Part(tuple(self._single(key, version, audience.cell) for version, key in taken), end)
        keys = [key for _, key in taken]
        return Part((self._batch(keys, audience.cell, end, synced=whole),) if keys else (), end, whole)

    def _page(self, audience: Audience, after: Key | None) -> Part:
        place = 0 if after is None else bisect_right(self._listed, after)
        taken: list[Key] = []
        size, last = 0, len(self._listed)
        while place < last and size < BATCH_BYTES:
            key = self._listed[place]
            place += 1
            frame = self._shown(key, audience.cell)
            if frame is not None and (not audience.kinds or key[0] in audience.kinds):
                taken.append(key)
                size += len(frame)
        more = self._listed[place - 1] if place < last else None
        if not audience.batches:
            return Part(tuple(self._single(key, 0, audience.cell) for key in taken), 0, after=more)
        return Part((self._batch(taken, audience.cell, 0, synced=False),) if taken else (), 0, after=more)

    def _shown(self, key: Key, cell: str) -> bytes | None:
        """The resource as the cell sees it; None if it does not."""
        held = self._held.get(key)
        if held is not None and cell in held.pinned:
            return _framed(held.pinned[cell])
        if held is None or held.shown is None or cell in held.shown:
            return self._frames.get(key)
        return None if held.former is None else _framed(held.former)

    def _batch(self, keys: Iterable[Key], cell: str, version: int, *, synced: bool) -> bytes:
        parts = [pb.WatchResponse(type=pb.WatchResponse.TYPE_BATCH, resource_version=version, synced=synced).SerializeToString()]
        for key in keys:
            frame = self._shown(key, cell)
            parts += (_CHANGED, frame) if frame is not None else (_REMOVED, _gone(key))
        return b"".join(parts)

    def _single(self, key: Key, version: int, cell: str) -> bytes:
        frame = self._shown(key, cell)
        kind = pb.WatchResponse.TYPE_DELETED if frame is None else pb.WatchResponse.TYPE_PUT
        head = pb.WatchResponse(type=kind, resource_version=version).SerializeToString()
        return head + _RESOURCE + (frame if frame is not None else _gone(key))


def _gone(key: Key) -> bytes:
    return _framed(resource_pb2.Resource(kind=key[0], metadata=resource_pb2.Metadata(name=key[1])).SerializeToString())


def _framed(body: bytes) -> bytes:
    """The body behind its length, a varint, as it stands in an embedding message."""
    head, length = bytearray(), len(body)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body
