"""Configuration of the ingestion service."""

from pathlib import Path

from chassis.config import KafkaConfig, LakeConfig, OlapConfig, RpcConfig, ServiceConfig


class IngestionConfig(ServiceConfig):
    """What every role of ingestion is told."""

    kafka: KafkaConfig
    lake: LakeConfig
    olap: OlapConfig
    rpc: RpcConfig
    # Role `backfill` only: the files to load, in this order: trip files and record files.
    backfill_files: tuple[Path, ...] = ()
