"""The tables of runs, schedules, partitions, objectives and model versions, as the migrations make them."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

_metadata = sa.MetaData()
_TIME = sa.DateTime(timezone=True)
RUNS = sa.Table(
    "runs",
    _metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("kind", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("cell", sa.Text),
    sa.Column("partition_date", sa.Date),
    sa.Column("state", sa.Text),
    sa.Column("reasons", ARRAY(sa.Text)),
    sa.Column("attempt", sa.Integer),
    sa.Column("failures", sa.Integer),
    sa.Column("max_attempts", sa.Integer),
    sa.Column("worker", sa.Text),
    sa.Column("lease", sa.Text),
    sa.Column("lease_seconds", sa.Integer),
    sa.Column("lease_expires_at", _TIME),
    sa.Column("finished_lease", sa.Text),
    sa.Column("due_at", _TIME),
    sa.Column("created_at", _TIME),
    sa.Column("started_at", _TIME),
    sa.Column("ended_at", _TIME),
    sa.Column("outputs", JSONB),
    sa.Column("was_suspended", sa.Boolean),
    sa.Column("log_lines", sa.Integer),
    sa.Column("timeout_seconds", sa.Integer),
    sa.Column("max_concurrent", sa.Integer),
    sa.Column("memory_mib", sa.Integer),
    sa.Column("cpu_milli", sa.Integer),
    sa.Column("tier", sa.Integer),
    sa.Column("schedule", sa.Text),
    sa.Column("scheduled_for", _TIME),
    sa.Column("inputs", JSONB),
    sa.Column("produces", ARRAY(sa.Text)),
    sa.Column("worker_kinds", ARRAY(sa.Text)),
    sa.Column("worker_memory_mib", sa.Integer),
    sa.Column("worker_cpu_milli", sa.Integer),
    sa.Column("place_worker", sa.Text),
    sa.Column("made_place_at", _TIME),
    sa.Column("told_state", sa.Text),
)
SCHEDULE_POSITIONS = sa.Table(
    "schedule_positions",
    _metadata,
    sa.Column("schedule", sa.Text, primary_key=True),
    sa.Column("start_date", sa.Text),
    sa.Column("position", _TIME),
)
RUN_LOG = sa.Table(
    "run_log",
    _metadata,
    sa.Column("run", sa.BigInteger, primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer),
    sa.Column("written_at", _TIME),
    sa.Column("text", sa.Text),
)
PARTITIONS = sa.Table(
    "partitions",
    _metadata,
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("partition_date", sa.Date, primary_key=True),
    sa.Column("state", sa.Text),
    sa.Column("reasons", ARRAY(sa.Text)),
    sa.Column("incident_ids", ARRAY(sa.Text)),
    sa.Column("table_version", sa.BigInteger),
    sa.Column("state_changed_at", _TIME),
    sa.Column("judged_state", sa.Text),
    sa.Column("override_reason", sa.Text),
    sa.Column("override_actor", sa.Text),
    sa.Column("override_at", _TIME),
    sa.Column("run", sa.BigInteger),
    sa.Column("revision", sa.BigInteger),
    sa.Column("causes", JSONB),
)
PARTITION_CELLS = sa.Table(
    "partition_cells",
    _metadata,
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("revision", sa.BigInteger),
    sa.Column("declared_version", sa.BigInteger),
)
PARTITION_VERDICTS = sa.Table(
    "partition_verdicts",
    _metadata,
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("partition_date", sa.Date, primary_key=True),
    sa.Column("aspect", sa.Text, primary_key=True),
    sa.Column("verdict", sa.Text),
    sa.Column("table_version", sa.BigInteger),
    sa.Column("reasons", ARRAY(sa.Text)),
    sa.Column("incident_ids", ARRAY(sa.Text)),
    sa.Column("reported_at", _TIME),
    sa.Column("value", sa.Float),
)
SLO_SAMPLES = sa.Table(
    "slo_samples",
    _metadata,
    sa.Column("slo", sa.Text, primary_key=True),
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("indicator", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("total", sa.Integer),
    sa.Column("good", sa.Integer),
    sa.Column("minute", _TIME),
    sa.Column("minute_good", sa.Boolean),
    sa.Column("measured_since", _TIME),
)
PARTITION_OVERRIDES = sa.Table(
    "partition_overrides",
    _metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("cell", sa.Text),
    sa.Column("dataset", sa.Text),
    sa.Column("partition_date", sa.Date),
    sa.Column("state", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("actor", sa.Text),
    sa.Column("made_at", _TIME),
    sa.Column("withdrawn_at", _TIME),
    sa.Column("withdrawn_by", sa.Text),
    sa.Column("withdrawn_because", sa.Text),
)
MODEL_VERSIONS = sa.Table(
    "model_versions",
    _metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary),
    sa.Column("standing", sa.Text),
    sa.Column("stage", sa.Text),
    sa.Column("reasons", ARRAY(sa.Text)),
    sa.Column("answers", sa.BigInteger),
    sa.Column("failures", sa.BigInteger),
    sa.Column("difference_sum", sa.Float),
    sa.Column("registered_at", _TIME),
    sa.Column("stage_changed_at", _TIME),
)
# Time of the database at the moment of asking; now() would be that of the transaction's begin.
DATABASE_TIME = sa.func.clock_timestamp(type_=_TIME)


async def now_of(connection: AsyncConnection) -> datetime:
    """The database's time at this moment, UTC."""
    now: datetime = (await connection.execute(sa.select(DATABASE_TIME))).scalar_one()
    return now
