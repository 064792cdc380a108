"""Compatibility and mode: of a subject, of a context, of everything; the nearest one counts."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.controlplane.registry import store
from services.controlplane.registry.definition import Compatibility, Mode, RegistryCode, failure
from services.controlplane.registry.names import GLOBAL, scopes
from services.controlplane.registry.store import Settings


@dataclass(frozen=True)
class Effective:
    """What counts for a subject."""

    compatibility: Compatibility = Compatibility.BACKWARD
    normalize: bool = False
    mode: Mode = Mode.READWRITE


async def effective(connection: AsyncConnection, subject: str) -> Effective:
    """What counts for a subject, or for everything if it is ""."""
    order = scopes(subject) if subject != GLOBAL else (GLOBAL,)
    known = await store.settings(connection, order)
    nearest = [known[scope] for scope in order if scope in known]
    level = next((each.compatibility for each in nearest if each.compatibility is not None), Compatibility.BACKWARD)
    normalize = next((each.normalize for each in nearest if each.normalize is not None), False)
    mode = next((each.mode for each in nearest if each.mode is not None), Mode.READWRITE)
    if known.get(GLOBAL, Settings()).mode == Mode.READONLY_OVERRIDE:
        mode = Mode.READONLY_OVERRIDE
    return Effective(Compatibility(level), normalize, Mode(mode))


class Configuration:
    """Reads and changes what is configured."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def own(self, scope: str) -> Settings:
        """What is configured for a scope itself."""
        async with self._engine.connect() as connection:
            return (await store.settings(connection, [scope])).get(scope, Settings())

    async def effective(self, subject: str) -> Effective:
        """What counts for a subject."""
        async with self._engine.connect() as connection:
            return await effective(connection, subject)

    async def put(self, scope: str, **changed: object) -> None:
        """Changes settings of a scope; None takes one away."""
        async with self._engine.begin() as connection:
            await store.put_settings(connection, scope, **changed)

    async def put_mode(self, scope: str, mode: Mode, *, force: bool = False) -> None:
        """Changes the mode of a scope.

        Raises:
            ArterialError: 42205 if subjects would be imported over existing ones, unless it is forced.
        """
        async with self._engine.begin() as connection:
            await store.lock(connection)
            if mode is Mode.IMPORT and not force and await _occupied(connection, scope):
                raise failure(RegistryCode.OPERATION_NOT_PERMITTED, f"Cannot import since found existing subjects under '{scope or '.'}'")
            await store.put_settings(connection, scope, mode=mode.value)


async def _occupied(connection: AsyncConnection, scope: str) -> bool:
    """True if a scope has a version; what Arterial brings with it does not count."""
    if scope.endswith(":") or scope == GLOBAL:
        found = await store.all_versions(connection, prefix=scope, deleted=False, latest=False)
        return any(each.schema_id >= store.FIRST_ID for each in found if not each.subject.endswith(".proto"))
    return bool(await store.versions(connection, scope))


def level(text: object) -> Compatibility:
    """A level as a request names it. Raises 42203."""
    try:
        return Compatibility(str(text).upper())
    except ValueError as error:
        names = ", ".join(Compatibility)
        raise failure(RegistryCode.INVALID_COMPATIBILITY, f"Invalid compatibility level {text!r}. Valid values are: {names}") from error


def mode_of(text: object) -> Mode:
    """A mode as a request names it. Raises 42204."""
    try:
        return Mode(str(text).upper())
    except ValueError as error:
        raise failure(RegistryCode.INVALID_MODE, f"Invalid mode {text!r}. Valid values are: {', '.join(Mode)}") from error
