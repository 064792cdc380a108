"""Configuration of the quality monitor."""

from typing import ClassVar

from pydantic import Field

from chassis.config import RpcConfig, ServiceConfig, SqlConfig


class DqmConfig(ServiceConfig):
    """What every role of the quality monitor is told."""

    watches: ClassVar[frozenset[str]] = frozenset({"Dataset", "QualityPolicy", "QualityRule"})
    sql: SqlConfig
    rpc: RpcConfig
    # host:port of the Data Stats Service.
    dss: str
    # Which of the declared quality policies holds in this cell.
    policy: str = "quality"
    poll_seconds: float = Field(default=2.0, gt=0)
    # A date is judged when its partitions, and those before it, have not changed for so long: what is being written looks like a fault.
    quiet_seconds: float = Field(default=10.0, ge=0)
    # And bad news only after so long: a load that pauses for a moment looks like lost rows.
    confirm_seconds: float = Field(default=20.0, ge=0)
    # And at the latest so long after a change, so that a table that is never quiet is judged, too.
    patience_seconds: float = Field(default=600.0, ge=0)
    # A partition that is due counts as missing after so long: its rows may be on their way.
    late_seconds: float = Field(default=600.0, ge=0)
    # Days before a partition that forecasts learn from.
    history_days: int = Field(default=56, ge=14, le=400)
    # How often a date with open incidents is judged again: lineage may have learned who else is hit.
    refresh_seconds: float = Field(default=60.0, gt=0)
