"""Configuration of the Data Stats Service."""

from typing import ClassVar

from pydantic import Field

from chassis.config import LakeConfig, OlapConfig, Part, RpcConfig, ServiceConfig


class ProfileConfig(Part):
    """How often partitions are profiled."""

    # A partition that still grows (today's) is profiled at most this often, seconds.
    min_interval_seconds: float = Field(default=30.0, ge=0)
    # How often the logs of the tables are looked at for a new version, seconds.
    poll_seconds: float = Field(default=1.0, gt=0)


class DssConfig(ServiceConfig):
    """What every role of dss is told. The database of `olap` holds the series."""

    watches: ClassVar[frozenset[str]] = frozenset({"CuratedTable", "Dataset", "Topic"})
    lake: LakeConfig
    olap: OlapConfig
    rpc: RpcConfig
    profile: ProfileConfig = ProfileConfig()
