"""Schedules that make runs; terms of a run, what it reads and makes, and what its worker declared."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NUMBERS = ("timeout_seconds", "max_concurrent", "memory_mib", "cpu_milli", "worker_memory_mib", "worker_cpu_milli")


def upgrade() -> None:
    for name in NUMBERS:
        op.add_column("runs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("tier", sa.Integer, nullable=False, server_default="2"))
    # Empty where somebody asked for the run.
    op.add_column("runs", sa.Column("schedule", sa.Text, nullable=False, server_default=""))
    op.add_column("runs", sa.Column("scheduled_for", TIME))
    # What it reads besides what its model says: [[dataset, days], ...].
    op.add_column("runs", sa.Column("inputs", JSONB, nullable=False, server_default="[]"))
    op.add_column("runs", sa.Column("produces", ARRAY(sa.Text), nullable=False, server_default="{}"))
    # Kinds that the worker takes: where a waiting run could go.
    op.add_column("runs", sa.Column("worker_kinds", ARRAY(sa.Text), nullable=False, server_default="{}"))
    # When others were last stopped to make place for it.
    op.add_column("runs", sa.Column("made_place_at", TIME))
    op.drop_index("runs_open_request", "runs")
    asked_for = sa.text("state IN ('PENDING', 'SUSPENDED', 'RUNNING') AND schedule = ''")
    op.create_index("runs_open_request", "runs", ["kind", "subject", "cell", "partition_date"], unique=True, postgresql_where=asked_for)
    # A tick makes one run, ever.
    op.create_index("runs_tick", "runs", ["schedule", "scheduled_for"], unique=True, postgresql_where=sa.text("schedule <> ''"))
    op.create_index("runs_by_schedule", "runs", ["schedule", "number"], postgresql_where=sa.text("schedule <> ''"))
    op.create_index("runs_running", "runs", ["cell", "kind", "subject"], postgresql_where=sa.text("state = 'RUNNING'"))
    op.create_table(
        "schedule_positions",
        sa.Column("schedule", sa.Text, primary_key=True),
        # The start that the position counts from: another start begins anew.
        sa.Column("start_date", sa.Text, nullable=False),
        # Ticks up to this moment are decided.
        sa.Column("position", TIME, nullable=False),
    )
