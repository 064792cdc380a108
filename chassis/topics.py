"""Topics as the data plane sees them."""

from dataclasses import dataclass, replace

from arterial.api.controlplane.v1 import specs_pb2


@dataclass(frozen=True)
class Gap:
    """Offsets [start, end) of a partition that were lost, accepted by declaration."""

    incarnation: int
    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class Adoption:
    """How records that were not made for Arterial are identified and dated, by SQL expressions; `framed` as schema registries have it."""

    framed: bool
    identity: str
    time: str


@dataclass(frozen=True)
class Topic:
    """A declared topic; what a resource does not say is as here.

    `message` is the full name of a built-in contract, `schema` the Schema resource of any other. With `any_partition` no record is
    misrouted.
    """

    name: str
    message: str
    key_field: str
    key_is_partition: bool = False
    partitions: int = 16
    incarnation: int = 0
    retention_seconds: int = 7 * 86400
    dedup_offsets: int = 100_000
    wait_for_schema: bool = False
    curated: bool = True
    live: bool = True
    gaps: tuple[Gap, ...] = ()
    schema: str = ""
    any_partition: bool = False
    adoption: Adoption | None = None


def as_it_is(topic: Topic, partitions: int) -> Topic:
    """The topic by which records of a log of so many partitions (0: not known) are routed.

    An adopted one is as its producers made it: they spread keys over the partitions that there are. One of ours is as it is declared: what
    lies elsewhere is misrouted.
    """
    adopted = topic.adoption is not None and partitions
    return replace(topic, partitions=partitions) if adopted and partitions != topic.partitions else topic


def topic_from_spec(name: str, spec: specs_pb2.TopicSpec) -> Topic:
    """The topic that a resource declares."""
    return Topic(
        name=name,
        message=spec.message,
        key_field=spec.key_field,
        key_is_partition=spec.routing == specs_pb2.ROUTING_PARTITION,
        partitions=spec.partitions or Topic.partitions,
        incarnation=spec.incarnation,
        retention_seconds=spec.retention_seconds or Topic.retention_seconds,
        dedup_offsets=spec.dedup_offsets or Topic.dedup_offsets,
        wait_for_schema=spec.unknown_schema == specs_pb2.UNKNOWN_SCHEMA_POLICY_WAIT,
        curated=spec.curated,
        live=spec.live,
        gaps=tuple(Gap(gap.incarnation, gap.partition, gap.start_offset, gap.end_offset) for gap in spec.gaps),
        schema=spec.schema,
        any_partition=spec.routing == specs_pb2.ROUTING_ANY,
        adoption=_adoption(spec.adoption) if spec.HasField("adoption") else None,
    )


def _adoption(spec: specs_pb2.Adoption) -> Adoption:
    return Adoption(spec.format != specs_pb2.RECORD_FORMAT_PLAIN, spec.id, spec.time)
