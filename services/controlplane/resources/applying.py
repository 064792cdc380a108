"""Plan, apply and delete: what is asked for is checked whole, shown, approved, and then done at once or not at all."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from textwrap import shorten

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.resources import Key, key_of
from services.controlplane.jobs import retirements, schedules
from services.controlplane.models.model_store import ModelStore
from services.controlplane.resources import checking, dashboards, planning
from services.controlplane.resources.declared_schemas import KIND as SCHEMA
from services.controlplane.resources.declared_schemas import DeclaredSchemas, statuses_into
from services.controlplane.resources.dependents import Dependents, told
from services.controlplane.resources.references import dataset_names, references_of
from services.controlplane.resources.store import ABSENT, Edit, ResourceStore, Why, Written, expect
from services.controlplane.resources.tiers import promise
from services.controlplane.rollouts import rollouts
from services.controlplane.rollouts.rollouts import Showing, UnderWay

LATEST_CHANGES = 10
NEXT_TICKS = 3
# What an error tells, whose details travel in a header of 8 KB: doors with their reasons, characters of one, and dependents of one.
MAX_DOORS_TOLD, MAX_REASON, MAX_FELT_TOLD = 8, 300, 6
_MADE = (pb.Change.ACTION_CREATE, pb.Change.ACTION_UPDATE)


@dataclass(frozen=True)
class Planned:
    """Changes in the order of the resources given, then removals; `wanted` has the resources as they are to be stored."""

    changes: Sequence[pb.Change]
    wanted: Mapping[Key, resource_pb2.Resource]


class Applying:
    """What is done to resources."""

    def __init__(self, store: ResourceStore, models: ModelStore, schemas: DeclaredSchemas, dependents: Dependents) -> None:
        self._store = store
        self._models = models
        self._schemas = schemas
        self._dependents = dependents
        # One after another: what is checked is what is written over. Other replicas are told apart by the version (`ResourceStore.write`).
        self._turn = asyncio.Lock()

    async def plan(self, request: pb.PlanRequest) -> pb.PlanResponse:
        """What `apply` of the same would change, and who would feel it. Raises INVALID_REQUEST with every violation."""
        existing, _ = await self._store.snapshot()
        planned = await self._planned(request.resources, _removals(request, existing), existing)
        return pb.PlanResponse(changes=planned.changes, dependents_unknown=await self._tell_dependents(planned.changes, existing))

    async def apply(self, request: pb.ApplyRequest, actor: str) -> pb.ApplyResponse:
        """Makes the resources so, all or none. Raises as the contract says."""
        async with self._turn:
            existing, version = await self._store.snapshot()
            planned = await self._planned(request.resources, _removals(request, existing), existing)
            showing = Showing(_turns(request.canary, planned, existing))
            written = await self._write(planned, request.approvals, (existing, version), Why(actor, request.message), showing)
        return pb.ApplyResponse(
            changes=planned.changes, resources=written.resources, retirements=map(retirements.told, written.retirements)
        )

    async def take_back(self, found: Sequence[UnderWay], approvals: Sequence[str], why: Why) -> tuple[Sequence[pb.Change], Written]:
        """Makes resources what they were for cells that were not shown a change, in all cells; what is new is removed.

        Raises:
            ArterialError: as `apply`; CONFLICT if one was changed, or shown to another cell, meanwhile.
        """
        async with self._turn:
            existing, version = await self._store.snapshot()
            for each in found:
                if each.version != (existing[each.key].metadata.resource_version if each.key in existing else 0):
                    raise ArterialError(Reason.CONFLICT, f"{'/'.join(each.key)} was changed meanwhile")
            former = [_as_given(each.former, each.version or ABSENT) for each in found if each.former is not None]
            removed = [planning.removal(each.key, existing) for each in found if each.former is None]
            planned = await self._planned(former, removed, existing)
            return planned.changes, await self._write(planned, approvals, (existing, version), why, Showing(aborted=why.message))

    async def _write(
        self,
        planned: Planned,
        approvals: Sequence[str],
        over: tuple[planning.Existing, int],
        why: Why,
        showing: Showing = rollouts.ALL_AT_ONCE,
        *,
        removed: int = 0,
    ) -> Written:
        """Does what was planned over a state, if it may be done; what is removed must have the version `removed` (0 for any).

        What is taken back is written even where it is what it was: its rollout ends.
        """
        existing, version = over
        await self._refuse_unapproved(planned.changes, approvals, existing)
        edits = [
            Edit(key, wanted, change.SerializeToString(), wanted.metadata.resource_version if wanted is not None else removed)
            for change in planned.changes
            if change.action != pb.Change.ACTION_NONE or showing.aborted
            for key in [(change.kind, change.name)]
            for wanted in [planned.wanted.get(key)]
        ]
        for edit in edits:
            expect(edit, existing.get(edit.key))
        await self._register(planned, existing)
        written = await self._store.write(edits, why, version, showing) if edits else Written()
        await self._models.settle([resource.metadata.name for resource in written.resources if resource.kind == "Model"])
        return written

    async def delete(self, request: pb.DeleteResourceRequest, actor: str) -> pb.DeleteResourceResponse:
        """Removes a resource. Raises NOT_FOUND, CONFLICT, or REFUSED while others refer to it."""
        key = (request.kind, request.name)
        async with self._turn:
            existing, version = await self._store.snapshot()
            if key not in existing:
                raise ArterialError(Reason.NOT_FOUND, f"{request.kind}/{request.name} does not exist")
            planned = await self._planned([], [planning.removal(key, existing)], existing)
            why = Why(actor, request.message)
            written = await self._write(planned, request.approvals, (existing, version), why, removed=request.resource_version)
        return pb.DeleteResourceResponse(resource_version=written.version, retirements=map(retirements.told, written.retirements))

    async def describe(self, kind: str, name: str) -> pb.DescribeResourceResponse:
        """A resource with what holds for it and what hangs on it. Raises NOT_FOUND."""
        existing, _ = await self._store.snapshot()
        resource = existing.get((kind, name))
        if resource is None:
            raise ArterialError(Reason.NOT_FOUND, f"{kind}/{name} does not exist")
        names = dataset_names(resource, existing)
        found, unknown = await self._dependents.of(names)
        changes, _ = await self._store.history(kind, name, 0, LATEST_CHANGES)
        users = planning.users_of([(kind, name)], {key: other for key, other in existing.items() if key != (kind, name)})
        described = pb.DescribeResourceResponse(
            resource=resource,
            refers_to=["/".join(reference.target) for reference in references_of(resource)],
            referred_to_by=users.get((kind, name), []),
            dependents=told(found, names),
            dependents_unknown=unknown,
            changes=[change.told() for change in changes],
        )
        if kind == "Schedule":
            for moment in await asyncio.to_thread(schedules.coming, resource.schedule, datetime.now(UTC), NEXT_TICKS):
                described.next_ticks.add().FromDatetime(moment)
        if kind == "Dataset":
            rules = {other.metadata.name: other.quality_rule for other in existing.values() if other.kind == "QualityRule"}
            described.promise.CopyFrom(promise(resource, rules))
        return described

    async def _planned(
        self, resources: Sequence[resource_pb2.Resource], removed: Sequence[pb.Change], existing: planning.Existing
    ) -> Planned:
        gone = {(change.kind, change.name) for change in removed if change.action == pb.Change.ACTION_DELETE}
        wanted = {key_of(resource): resource for resource in resources}
        _refuse_used(gone, dict(existing) | wanted)
        await self._refuse_invalid(resources, existing, gone)
        _refuse(await self._schemas.unknown_pins(resources, existing))
        remains = await self._store.remains([key for key in wanted if key not in existing])
        changes = await asyncio.to_thread(planning.plan, resources, existing, remains)
        _refuse(await self._schemas.judge(resources, changes, existing))
        return Planned([*changes, *removed], wanted)

    async def _tell_dependents(self, changes: Sequence[pb.Change], existing: planning.Existing) -> str:
        """Adds to each change who would feel it; returns why some could not be asked for."""
        moved = [change for change in changes if change.action not in (pb.Change.ACTION_NONE, pb.Change.ACTION_CREATE)]
        felt = {key: dataset_names(existing[key], existing) for key in ((change.kind, change.name) for change in moved)}
        found, unknown = await self._dependents.of(name for names in felt.values() for name in names)
        for change in moved:
            change.dependents.extend(told(found, felt[change.kind, change.name]))
        return unknown

    async def _refuse_unapproved(self, changes: Sequence[pb.Change], approvals: Sequence[str], existing: planning.Existing) -> None:
        """Raises REFUSED with every one-way door, why it is one, and who would feel it."""
        doors = planning.unapproved(changes, approvals)
        if not doors:
            return
        closed = [change for change in changes if set(planning.doors(change)) & set(doors)]
        unknown = await self._tell_dependents(closed, existing)
        why = [
            Violation(
                f"{change.kind}/{change.name}:{field.path}",
                "; ".join([shorten(field.reason, MAX_REASON, placeholder=" ..."), *_felt(change)]),
            )
            for change in closed[:MAX_DOORS_TOLD]
            for field in change.fields
            if field.one_way_door
        ]
        message = f"one-way doors need approval: {', '.join(doors)}"
        if unknown:
            message += f"; who would feel it is not known: {unknown}"
        raise ArterialError(Reason.REFUSED, message, violations=why, metadata={"approvals": ",".join(doors)})

    async def _register(self, planned: Planned, existing: planning.Existing) -> None:
        """Registers the schemas that change: a schema that no resource names yet harms nobody, should the rest fail."""
        moved = [change for change in planned.changes if change.kind == SCHEMA and change.action in _MADE]
        approved = frozenset(change.name for change in moved if planning.doors(change))
        made = await self._schemas.register([planned.wanted[SCHEMA, change.name] for change in moved], approved, existing)
        statuses_into(planned.wanted, made)

    async def _refuse_invalid(self, resources: Sequence[resource_pb2.Resource], existing: planning.Existing, gone: set[Key]) -> None:
        staying = {key: resource for key, resource in existing.items() if key not in gone}
        wrong = await asyncio.to_thread(checking.violations, resources, staying)
        wrong += await asyncio.to_thread(checking.elsewhere, resources, existing, staying)
        wrong += await asyncio.to_thread(dashboards.violations, resources)
        wrong += await asyncio.to_thread(schedules.violations, resources, staying)
        wrong += [
            Violation(
                f"resources[{place}].spec.pinnedVersion", f"no version {resources[place].model.pinned_version} of this model is registered"
            )
            for place in await self._models.unknown_pins(resources)
        ]
        _refuse(wrong)


def _removals(request: pb.PlanRequest | pb.ApplyRequest, existing: planning.Existing) -> Sequence[pb.Change]:
    """Removals that a request asks for, by name and by labels. Raises INVALID_REQUEST for what is given, too."""
    names = [(each.kind, each.name) for each in request.removals]
    given = {key_of(resource) for resource in request.resources}
    _refuse([Violation(f"removals[{place}]", f"{'/'.join(key)} is given, too") for place, key in enumerate(names) if key in given])
    pruned = planning.removals(request.resources, existing, request.prune) if request.HasField("prune") else []
    return [*planning.named_removals(names, existing), *(change for change in pruned if (change.kind, change.name) not in names)]


def _as_given(former: resource_pb2.Resource, version: int) -> resource_pb2.Resource:
    """A former resource as somebody would apply it over that version."""
    given = resource_pb2.Resource()
    given.CopyFrom(former)
    given.ClearField("status")
    given.metadata.resource_version = version
    return given


def _felt(change: pb.Change) -> list[str]:
    """Who would feel a change, for people; the most important first."""
    found = []
    for producer, what in ((False, "felt by"), (True, "written by")):
        each = [dependent for dependent in change.dependents if dependent.producer is producer]
        names = [f"{dependent.name} ({dependent.owner or 'not owned'})" for dependent in each[:MAX_FELT_TOLD]]
        more = len(each) - len(names)
        found += [f"{what} {', '.join(names)}" + f" and {more} more" * (more > 0)] if names else []
    return found


def _refuse(wrong: Sequence[Violation]) -> None:
    if wrong:
        raise ArterialError(Reason.INVALID_REQUEST, "the resources are not valid", violations=wrong)


def _turns(canary: str, planned: Planned, existing: planning.Existing) -> Sequence[str]:
    """The cells in the order in which they are shown the changes; none for all at once. Raises INVALID_REQUEST."""
    if not canary:
        return ()
    declared = [name for kind, name in existing if kind == "Cell"]
    if canary not in declared:
        _refuse([Violation("canary", f"no Cell {canary} is declared; there are {', '.join(sorted(declared)) or 'none'}")])
    return rollouts.order(canary, declared)


def _refuse_used(gone: Sequence[Key] | set[Key], existing: planning.Existing) -> None:
    for target, users in sorted(planning.users_of(gone, existing).items()):
        raise ArterialError(Reason.REFUSED, f"{'/'.join(target)} is referred to by {', '.join(users)}")
