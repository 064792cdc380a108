"""The table of rollouts, and what a write of resources does to it: a row for each resource whose last change goes, or went, by cells."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from arterial.api.controlplane.v1 import resource_pb2
from chassis.resources import Key, key_of
from services.controlplane.rollouts.rollouts import OPEN, Rollout, RolloutState, Showing
from services.controlplane.watch.frames import Held

_metadata = sa.MetaData()
_TIME = sa.DateTime(timezone=True)
ROLLOUTS = sa.Table(
    "rollouts",
    _metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("generation", sa.BigInteger),
    sa.Column("former", sa.LargeBinary),
    sa.Column("cells", ARRAY(sa.Text)),
    sa.Column("shown", sa.Integer),
    sa.Column("state", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("started_at", _TIME),
    sa.Column("moved_at", _TIME),
    sa.Column("removal", sa.Boolean),
)


async def begin(
    connection: AsyncConnection,
    keys: Collection[Key],
    current: Mapping[Key, resource_pb2.Resource],
    written: Sequence[resource_pb2.Resource],
    showing: Showing,
) -> None:
    """Ends the rollouts of what is written, and begins others if it goes by cells; in the transaction that writes.

    Where a rollout was not done, what the other cells still see stays what they see. One that is aborted is kept, for people.
    """
    found = await of(connection, keys)
    for row in found.values():
        await connection.execute(sa.delete(ROLLOUTS).where(ROLLOUTS.c.kind == row.kind, ROLLOUTS.c.name == row.name))
    if showing.aborted:
        await _keep_aborted(connection, found, written, showing.aborted)
    if not showing.cells:
        return
    after = dict.fromkeys(keys) | {key_of(resource): resource for resource in written}
    begun = []
    for key, resource in after.items():
        before, under_way = current.get(key), found.get(key)
        former = None if before is None else before.SerializeToString(deterministic=True)
        if under_way is not None and under_way.state in OPEN:
            former = under_way.former
        given = resource or before or resource_pb2.Resource()
        begun.append(
            {
                "kind": key[0],
                "name": key[1],
                "generation": given.metadata.generation,
                "former": former,
                "cells": list(showing.cells),
                "shown": 1,
                "removal": resource is None,
            }
        )
    fixed = {"state": str(RolloutState.RUNNING), "reason": "", "started_at": sa.func.now(), "moved_at": sa.func.now()}
    if begun:
        await connection.execute(sa.insert(ROLLOUTS).values(fixed), begun)


async def _keep_aborted(
    connection: AsyncConnection, found: Mapping[Key, "sa.Row[tuple[object, ...]]"], written: Sequence[resource_pb2.Resource], reason: str
) -> None:
    """Notes, of what there still is after its rollout was taken back, that it was."""
    rows = [
        {
            "kind": row.kind,
            "name": row.name,
            "generation": resource.metadata.generation,
            "former": None,
            "cells": row.cells,
            "shown": row.shown,
            "state": str(RolloutState.ABORTED),
            "reason": reason,
            "started_at": row.started_at,
            "removal": False,
        }
        for resource in written
        for row in [found.get(key_of(resource))]
        if row is not None
    ]
    if rows:
        await connection.execute(sa.insert(ROLLOUTS).values({"moved_at": sa.func.now()}), rows)


async def under_way(connection: AsyncConnection) -> Mapping[Key, "sa.Row[tuple[object, ...]]"]:
    """Rows of rollouts that not all cells were shown."""
    rows = await connection.execute(sa.select(ROLLOUTS).where(_open()))
    return {(row.kind, row.name): row for row in rows}


def _open() -> "sa.ColumnElement[bool]":
    return ROLLOUTS.c.state.in_([str(state) for state in OPEN])


async def of(connection: AsyncConnection, keys: Iterable[Key]) -> Mapping[Key, "sa.Row[tuple[object, ...]]"]:
    """Rows of these resources."""
    wanted = set(keys)
    names = sa.any_(sa.literal(sorted({name for _, name in wanted}), ARRAY(sa.Text)))
    rows = (await connection.execute(sa.select(ROLLOUTS).where(ROLLOUTS.c.name == names))).all()
    return {(row.kind, row.name): row for row in rows if (row.kind, row.name) in wanted}


async def held(connection: AsyncConnection) -> Mapping[Key, Held]:
    """What is not shown to all cells."""
    columns = (ROLLOUTS.c.kind, ROLLOUTS.c.name, ROLLOUTS.c.former, ROLLOUTS.c.cells, ROLLOUTS.c.shown)
    rows = await connection.execute(sa.select(*columns).where(_open()))
    return {(row.kind, row.name): Held(row.former, frozenset(row.cells[: row.shown])) for row in rows}


def rollout(row: "sa.Row[tuple[object, ...]]") -> Rollout:
    """A row as a value."""
    return Rollout(
        row.kind,
        row.name,
        row.generation,
        tuple(row.cells),
        row.shown,
        RolloutState(row.state),
        row.reason,
        row.started_at,
        row.moved_at,
        row.removal,
    )
