"""What of the desired state this process understands. A resource that it does not never replaces the last good version of the same one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2
from chassis import resources
from chassis.reporting import Standing
from chassis.resources import Key, key_of
from chassis.rpc.validation import violations_of


def why_not(resource: resource_pb2.Resource) -> Standing | None:
    """Why a resource is not understood; None if it is."""
    if resource.kind not in resources.FIELD_OF_KIND:
        # A newer control plane may know more than a process needs to: that is no failure.
        return Standing(None, "UnknownKind", f"this build of the process does not know {resource.kind}", aspect="Understood")
    if resource.WhichOneof("spec") != resources.FIELD_OF_KIND[resource.kind]:
        return _not_understood("kind and specification do not agree")
    broken = violations_of(resource)
    if broken:
        return _not_understood("; ".join(f"{violation.field}: {violation.description}" for violation in broken))
    return None


def _not_understood(why: str) -> Standing:
    return Standing(False, "NotUnderstood", f"{why}; the last good version stays in force", aspect="Understood")


@dataclass(frozen=True)
class Refused:
    """A resource that is not understood, as it was received, and why."""

    resource: resource_pb2.Resource
    why: Standing


class Received:
    """Desired state as it is received, on top of what is in force. Complete whenever the control plane says so."""

    def __init__(self, in_force: Iterable[resource_pb2.Resource], refused: Iterable[resource_pb2.Resource] = ()) -> None:
        self.in_force = {key_of(resource): resource for resource in in_force}
        self.refused: dict[Key, Refused] = {}
        self.changed = False
        # Keys seen since a resync began; None outside of one.
        self._seen: set[Key] | None = None
        for resource in refused:
            self._put(resource)
        self.changed = False

    @classmethod
    def judged(cls, found: Iterable[resource_pb2.Resource], refused: Iterable[resource_pb2.Resource] = ()) -> "Received":
        """What is understood of what was kept on disk, possibly by another build."""
        return cls((), (*found, *refused))

    def take(self, message: control.WatchResponse) -> int | None:
        """Takes a message in; the version that the state is complete at, None while it is not."""
        kind = message.type
        if kind == control.WatchResponse.TYPE_RESYNC:
            self._seen = set()
        elif kind == control.WatchResponse.TYPE_BATCH:
            for resource in message.changed:
                self._put(resource)
            for resource in message.removed:
                self._remove(key_of(resource))
        elif kind == control.WatchResponse.TYPE_PUT:
            self._put(message.resource)
        elif kind == control.WatchResponse.TYPE_DELETED:
            self._remove(key_of(message.resource))
        if kind != control.WatchResponse.TYPE_SYNCED and not message.synced:
            return None
        self._end_resync()
        return message.resource_version

    def _put(self, resource: resource_pb2.Resource) -> None:
        key = key_of(resource)
        if self._seen is not None:
            self._seen.add(key)
        held = self.in_force.get(key)
        if held is not None and same(held, resource):
            self.changed |= self.refused.pop(key, None) is not None
            return
        why = why_not(resource)
        self.changed = True
        if why is not None:
            self.refused[key] = Refused(resource, why)
            return
        self.refused.pop(key, None)
        self.in_force[key] = resource

    def _remove(self, key: Key) -> None:
        if self._seen is not None:
            self._seen.discard(key)
        gone = self.in_force.pop(key, None), self.refused.pop(key, None)
        self.changed |= gone != (None, None)

    def _end_resync(self) -> None:
        if self._seen is not None:
            for key in (self.in_force.keys() | self.refused.keys()) - self._seen:
                self._remove(key)
            self._seen = None


def same(one: resource_pb2.Resource, other: resource_pb2.Resource) -> bool:
    """True if the two say the same: a version that moved for another reason is no change."""
    if one.metadata.resource_version == other.metadata.resource_version:
        return one == other
    return _compared(one) == _compared(other)


def _compared(resource: resource_pb2.Resource) -> resource_pb2.Resource:
    compared = resource_pb2.Resource()
    compared.CopyFrom(resource)
    compared.metadata.ClearField("resource_version")
    compared.metadata.ClearField("updated_at")
    return compared


def ordered(in_force: Mapping[Key, resource_pb2.Resource]) -> tuple[resource_pb2.Resource, ...]:
    """By kind and name."""
    return tuple(in_force[key] for key in sorted(in_force))
