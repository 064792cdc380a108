"""Configuration of the ingestion service."""

from pathlib import Path
from typing import ClassVar

from chassis.config import KafkaConfig, LakeConfig, OlapConfig, RpcConfig, ServiceConfig


class IngestionConfig(ServiceConfig):
    """What every role of ingestion is told."""

    watches: ClassVar[frozenset[str]] = frozenset({"CuratedTable", "Dataset", "Pipeline", "Schema", "Topic"})
    kafka: KafkaConfig
    lake: LakeConfig
    olap: OlapConfig
    rpc: RpcConfig
    # Role `backfill` only: the files to load, in this order: trip files and record files.
    backfill_files: tuple[Path, ...] = ()
