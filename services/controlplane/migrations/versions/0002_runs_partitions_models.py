"""Runs of jobs with their log, states of dataset partitions, versions of models."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NOW = sa.func.now()
OPEN = sa.text("state IN ('PENDING', 'SUSPENDED', 'RUNNING')")


def upgrade() -> None:
    _runs()
    _partitions()
    op.create_table(
        "model_versions",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        # What was registered, serialised: it never changes.
        sa.Column("body", sa.LargeBinary, nullable=False),
        # What the gates and the shadow said: SHADOW, PASSED or REJECTED. The stage follows from it and from the pin of the Model.
        sa.Column("standing", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("reasons", ARRAY(sa.Text), nullable=False),
        sa.Column("answers", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("failures", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("difference_sum", sa.Float, nullable=False, server_default="0"),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("stage_changed_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("cell", sa.Text, nullable=False),
        sa.Column("partition_date", sa.Date, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reasons", ARRAY(sa.Text), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        # Empty where nobody holds the run. The clock of all times is the database's own: replicas and workers need not agree on theirs.
        sa.Column("lease", sa.Text, nullable=False),
        sa.Column("lease_seconds", sa.Integer, nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        # Lease of the last attempt that was finished: a repeated FinishRun is known by it.
        sa.Column("finished_lease", sa.Text, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("outputs", JSONB, nullable=False),
        sa.Column("was_suspended", sa.Boolean, nullable=False),
        sa.Column("log_lines", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_index("runs_by_request", "runs", ["kind", "subject", "cell", "partition_date", "number"])
    # At most one run of a request is under way, whatever replicas do at once.
    op.create_index("runs_open_request", "runs", ["kind", "subject", "cell", "partition_date"], unique=True, postgresql_where=OPEN)
    op.create_index("runs_open", "runs", ["cell", "kind", "number"], postgresql_where=OPEN)
    op.create_index("runs_by_kind", "runs", ["kind", "number"])
    op.create_index("runs_by_subject", "runs", ["subject", "number"])
    op.create_index("runs_by_state", "runs", ["state", "number"])
    op.create_table(
        "run_log",
        sa.Column("run", sa.BigInteger, sa.ForeignKey("runs.number", ondelete="CASCADE"), primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )


def _partitions() -> None:
    op.create_table(
        "partitions",
        sa.Column("cell", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("partition_date", sa.Date, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reasons", ARRAY(sa.Text), nullable=False),
        sa.Column("incident_ids", ARRAY(sa.Text), nullable=False),
        sa.Column("table_version", sa.BigInteger, nullable=False),
        sa.Column("state_changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("partitions_by_date", "partitions", ["cell", "partition_date", "dataset"])
    op.create_index("partitions_by_state", "partitions", ["cell", "state", "partition_date", "dataset"])
