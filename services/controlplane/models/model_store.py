"""Versions of models in PostgreSQL. What serves is written, in the same transaction, into the status of the Model, which watchers get."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import model_service_pb2 as pb
from chassis.errors import ArterialError, Reason
from services.controlplane.jobs import gating
from services.controlplane.jobs.rows import run_of
from services.controlplane.jobs.runs import RunState, number_of
from services.controlplane.models import promotion
from services.controlplane.models.promotion import Comparison, Stage, Standing, Version
from services.controlplane.resources import store
from services.controlplane.tables import DATABASE_TIME, MODEL_VERSIONS, RUNS

# Versions that passed and are looked at, newest first: only a rollback deeper than this would miss any.
CONSIDERED = 100


@dataclass(frozen=True)
class Stored:
    """A version as it is kept: what was registered, and where it stands."""

    registered: pb.ModelVersion
    judged: Version
    stage: Stage
    registered_at: datetime
    stage_changed_at: datetime


# Given the specification and the versions, the versions after a change.
Change = Callable[[specs_pb2.ModelSpec, Sequence[Version]], list[Version]]


class ModelStore:
    """Registers versions and decides which of them serve."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def register(self, registered: pb.ModelVersion) -> Stored:
        """Registers a version and judges it.

        Raises:
            ArterialError: NOT_FOUND (model, run), REFUSED if the version is there with another artefact, CONFLICT if its run was stopped.
        """
        name = registered.version
        async with self._engine.begin() as connection:
            await store.lock(connection)
            model = await store.find(connection, "Model", registered.model)
            known = await _version(connection, registered.model, name)
            if known is not None:
                if known.registered.sha256 != registered.sha256:
                    raise ArterialError(Reason.REFUSED, f"version {name} of {registered.model} is registered with another artefact")
                return known
            await _refuse_stopped(connection, registered.run_id)
            body = registered.SerializeToString(deterministic=True)
            values = {"model": registered.model, "version": name, "body": body, "reasons": []}
            standing = {"standing": str(Standing.SHADOW), "stage": str(Stage.SHADOW)}
            await connection.execute(sa.insert(MODEL_VERSIONS).values(values | standing))
            new = Version(name, dict(registered.metrics))

            def judge(spec: specs_pb2.ModelSpec, versions: Sequence[Version]) -> list[Version]:
                return promotion.registered(spec, [version for version in versions if version.version != name], new)

            await _change(connection, model, judge, f"version {name} was registered")
            return await _existing(connection, registered.model, name)

    async def compare(self, model: str, version: str, seen: Comparison) -> Stored:
        """Adds what was seen of a version in shadow. Raises NOT_FOUND, REFUSED if it is not in shadow."""

        def count(spec: specs_pb2.ModelSpec, versions: Sequence[Version]) -> list[Version]:
            return promotion.compared(spec, versions, version, seen)

        async with self._engine.begin() as connection:
            await store.lock(connection)
            resource = await store.find(connection, "Model", model)
            await _existing(connection, model, version)
            await _change(connection, resource, count, f"version {version} was compared in shadow")
            return await _existing(connection, model, version)

    async def roll_back(self, model: str, reason: str) -> Stored:
        """Makes the version before the live one live again. Raises NOT_FOUND (model), REFUSED."""

        def back(spec: specs_pb2.ModelSpec, versions: Sequence[Version]) -> list[Version]:
            return promotion.rolled_back(spec, versions, reason)

        async with self._engine.begin() as connection:
            await store.lock(connection)
            live = await _change(connection, await store.find(connection, "Model", model), back, f"rolled back: {reason}")
            return await _existing(connection, model, live)

    async def settle(self, models: Sequence[str]) -> None:
        """Brings versions and status in line with the specifications of these models, which may have changed."""
        for name in models:
            async with self._engine.begin() as connection:
                await store.lock(connection)
                try:
                    resource = await store.find(connection, "Model", name)
                except ArterialError:
                    continue  # deleted meanwhile
                await _change(connection, resource, promotion.settled, "the specification changed")

    async def unknown_pins(self, resources: Sequence[resource_pb2.Resource]) -> list[int]:
        """Places of the models among these resources that pin a version which is not registered."""
        async with self._engine.connect() as connection:
            return [
                place
                for place, resource in enumerate(resources)
                if resource.kind == "Model"
                and resource.model.pinned_version
                and await _version(connection, resource.metadata.name, resource.model.pinned_version) is None
            ]

    async def page(self, model: str, before: str | None, limit: int) -> list[Stored]:
        """Versions below `before` (None: all), newest first, at most `limit`. Raises NOT_FOUND (model)."""
        query = sa.select(MODEL_VERSIONS).where(MODEL_VERSIONS.c.model == model)
        query = query if before is None else query.where(MODEL_VERSIONS.c.version < before)
        async with self._engine.connect() as connection:
            await store.find(connection, "Model", model)
            rows = (await connection.execute(query.order_by(MODEL_VERSIONS.c.version.desc()).limit(limit))).all()
        return [_stored(row) for row in rows]


async def _refuse_stopped(connection: AsyncConnection, run_id: str) -> None:
    """Raises CONFLICT if the run that trained a version was stopped, because of what it read, before its worker heard of it."""
    if not run_id:
        return
    query = sa.select(RUNS.c.state, RUNS.c.reasons).where(RUNS.c.number == number_of(run_id)).with_for_update(read=True)
    run = (await connection.execute(query)).first()
    if run is None:
        raise ArterialError(Reason.NOT_FOUND, f"run {run_id} does not exist")
    if run.state != RunState.RUNNING:
        why = f" ({'; '.join(run.reasons)})" if run.reasons else ""
        raise ArterialError(Reason.CONFLICT, f"{run_id} is {run.state}{why}: what it trained is not taken")


async def _change(connection: AsyncConnection, resource: resource_pb2.Resource, change: Change, why: str) -> str:
    """Applies a change to the versions of a model and writes what serves; returns the live version ("" for none)."""
    name, spec = resource.metadata.name, resource.model
    held = await _considered(connection, name, spec.pinned_version)
    changed = change(spec, [stored.judged for stored in held.values()])
    after = [await _unless_withheld(connection, held[version.version], version) for version in changed]
    live, shadow = promotion.live_of(spec, after), promotion.shadow_of(spec, after)
    for version in after:
        before = held[version.version]
        stage = promotion.stage_of(version, live)
        if (version, stage) != (before.judged, before.stage):
            await _save(connection, name, version, stage, moved=stage is not before.stage)

    served = resource_pb2.ModelStatus()
    for target, serving in (("live", live), ("shadow", shadow)):
        if serving is not None:
            registered = held[serving.version].registered
            getattr(served, target).MergeFrom(
                resource_pb2.ServedVersion(version=serving.version, path=registered.path, sha256=registered.sha256)
            )

    def write(status: resource_pb2.Status) -> None:
        if status.HasField("model") or live is not None:
            status.model.CopyFrom(served)

    await store.edit_status(connection, resource, write, f"Model/{name}: {why}")
    return live.version if live is not None else ""


async def _unless_withheld(connection: AsyncConnection, before: Stored, after: Version) -> Version:
    """The version, left in shadow if it would go live by now and a partition that its training read is withheld since."""
    if (before.judged.standing, after.standing) != (Standing.SHADOW, Standing.PASSED) or not before.registered.run_id:
        return after
    row = (await connection.execute(sa.select(RUNS).where(RUNS.c.number == number_of(before.registered.run_id)))).first()
    if row is None:
        return after
    (weighed,) = await gating.weighed(connection, [replace(run_of(row), state=RunState.PENDING)])
    if weighed.state is RunState.PENDING:
        return after
    return replace(after, standing=Standing.SHADOW, reasons=tuple(f"stays in shadow: {why}" for why in weighed.reasons))


async def _considered(connection: AsyncConnection, model: str, pinned: str) -> dict[str, Stored]:
    table = MODEL_VERSIONS
    of_model = sa.select(table).where(table.c.model == model)
    passed = of_model.where(table.c.standing == str(Standing.PASSED)).order_by(table.c.version.desc()).limit(CONSIDERED)
    # A pin may keep a version live that was refused, or that is old; when it is taken away, the stage of that version must follow.
    others = sa.or_(table.c.version == pinned, table.c.stage == str(Stage.LIVE), table.c.standing == str(Standing.SHADOW))
    rows = [*(await connection.execute(passed)).all(), *(await connection.execute(of_model.where(others))).all()]
    return {row.version: _stored(row) for row in rows}


async def _save(connection: AsyncConnection, model: str, version: Version, stage: Stage, *, moved: bool) -> None:
    values: dict[str, Any] = {
        "standing": str(version.standing),
        "stage": str(stage),
        "reasons": list(version.reasons),
        "answers": version.answers,
        "failures": version.failures,
        "difference_sum": version.difference_sum,
    }
    if moved:
        values["stage_changed_at"] = DATABASE_TIME
    same = sa.and_(MODEL_VERSIONS.c.model == model, MODEL_VERSIONS.c.version == version.version)
    await connection.execute(sa.update(MODEL_VERSIONS).where(same).values(values))


async def _version(connection: AsyncConnection, model: str, version: str) -> Stored | None:
    query = sa.select(MODEL_VERSIONS).where(MODEL_VERSIONS.c.model == model, MODEL_VERSIONS.c.version == version)
    row = (await connection.execute(query)).first()
    return None if row is None else _stored(row)


async def _existing(connection: AsyncConnection, model: str, version: str) -> Stored:
    found = await _version(connection, model, version)
    if found is None:
        raise ArterialError(Reason.NOT_FOUND, f"version {version} of {model} is not registered")
    return found


def _stored(row: sa.Row[Any]) -> Stored:
    registered = pb.ModelVersion.FromString(row.body)
    judged = Version(row.version, dict(registered.metrics), Standing(row.standing), tuple(row.reasons))
    judged = replace(judged, answers=row.answers, failures=row.failures, difference_sum=row.difference_sum)
    return Stored(registered, judged, Stage(row.stage), row.registered_at, row.stage_changed_at)
