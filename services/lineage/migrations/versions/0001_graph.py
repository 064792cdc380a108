"""Nodes, what is known of them, and the edges that jobs draw between them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("is_job", sa.Boolean, nullable=False),
        sa.Column("owner", sa.Text, nullable=False, server_default=""),
        sa.Column("owner_at", sa.DateTime(timezone=True)),
        sa.Column("tier", sa.Integer, nullable=False, server_default="0"),
        sa.Column("tier_at", sa.DateTime(timezone=True)),
        # Event time of the schema that `columns` has.
        sa.Column("columns_at", sa.DateTime(timezone=True)),
        # Version of the last change, of the whole graph; replicas read what is newer than what they have.
        sa.Column("version", sa.BigInteger, nullable=False, index=True),
        sa.UniqueConstraint("is_job", "namespace", "name"),
    )
    op.create_table(
        "columns",
        sa.Column("node_id", sa.Integer, sa.ForeignKey("nodes.node_id"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("nodes.node_id"), primary_key=True),
        sa.Column("event_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("sql", sa.Text, nullable=False),
    )
    op.create_table(
        "dataset_edges",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.job_id"), primary_key=True),
        sa.Column("node_id", sa.Integer, sa.ForeignKey("nodes.node_id"), primary_key=True, index=True),
        # Whether the job makes the dataset, or reads it.
        sa.Column("made", sa.Boolean, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
    op.create_table(
        "column_edges",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.job_id"), primary_key=True),
        sa.Column("source_id", sa.Integer, sa.ForeignKey("nodes.node_id"), primary_key=True),
        sa.Column("source_column", sa.Text, primary_key=True),
        sa.Column("target_id", sa.Integer, sa.ForeignKey("nodes.node_id"), primary_key=True),
        # Empty where the source decides which rows the target has.
        sa.Column("target_column", sa.Text, primary_key=True),
        sa.Column("transformation", sa.Text, nullable=False),
    )
    op.create_index("column_edges_source", "column_edges", ["source_id", "source_column"])
