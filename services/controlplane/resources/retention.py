"""What data a resource makes, and when they go once it is declared no longer. Pure."""

from collections.abc import Mapping
from datetime import timedelta

from arterial.api.controlplane.v1 import resource_pb2
from chassis.jobs import RETIRE_RECORDS, RETIRE_STATISTICS, RETIRE_TABLES
from chassis.resources import Key, key_of
from chassis.tiers import DAY, TIERS
from chassis.topics import topic_from_spec
from services.controlplane.resources.tiers import promise

# What each kind of run drops. Only a removal makes them.
DROPS: Mapping[str, str] = {RETIRE_RECORDS: "records", RETIRE_TABLES: "tables", RETIRE_STATISTICS: "statistics"}
# Kinds whose resources have a table of the curated zone by their name.
WITH_CURATED = frozenset({"CuratedTable", "Topic"})
RESERVED = "such runs drop data: only the removal of what made them asks for one"
# Of tables that no Dataset ever described.
_UNDESCRIBED_TIER = 3


def makes(key: Key) -> tuple[str, ...]:
    """Logical names of the tables and the topic whose rows a resource makes; none for a kind without data."""
    kind, name = key
    if kind == "Topic":
        return f"kafka/{name}", f"lake/raw/{name}", f"lake/curated/{name}", f"olap/live/{name}"
    return (f"lake/curated/{name}",) if kind == "CuratedTable" else ()


def drops(resource: resource_pb2.Resource) -> tuple[str, ...]:
    """Kinds of the runs that drop the data of a removed resource, in their order. An adopted topic is another's: its records stay."""
    if not makes(key_of(resource)):
        return ()
    with_records = resource.kind == "Topic" and not resource.topic.HasField("adoption")
    return (*([RETIRE_RECORDS] if with_records else []), RETIRE_TABLES, RETIRE_STATISTICS)


def retention(resource: resource_pb2.Resource, datasets: Mapping[str, resource_pb2.Resource]) -> timedelta:
    """How long the data of a resource stay after its removal: all of them as long as the longest that was promised of any.

    They go together, because tables that follow others would be wrong beside new ones of the same names.

    Args:
        resource: as it was last declared.
        datasets: what described its data, as last declared, by logical name.
    """
    described = [promise(dataset, {}).retention_seconds for name, dataset in datasets.items() if not name.startswith("kafka/")]
    tables = max(described, default=TIERS[_UNDESCRIBED_TIER].retention_days * DAY)
    records = topic_from_spec(resource.metadata.name, resource.topic).retention_seconds if resource.kind == "Topic" else 0
    return timedelta(seconds=max(tables, records))
