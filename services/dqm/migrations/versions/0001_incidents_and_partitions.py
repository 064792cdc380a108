"""Incidents, partitions with their verdicts, and what each date was last judged from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "incidents",
        sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("incident_id", sa.Text, nullable=False, unique=True),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("partition_date", sa.Text, nullable=False),
        sa.Column("market", sa.Text, nullable=False),
        sa.Column("columns", JSONB, nullable=False),
        sa.Column("markets", JSONB, nullable=False),
        sa.Column("severity", sa.Integer, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("evidence", JSONB, nullable=False),
        sa.Column("affected", JSONB, nullable=False),
        sa.Column("table_version", sa.BigInteger, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.Column("acknowledged_by", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("incidents_of_dataset", "incidents", ["dataset", "number"])
    op.create_index("incidents_open", "incidents", ["partition_date"], postgresql_where=sa.text("state <> 3"))
    op.create_table(
        "partitions",
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("partition_date", sa.Text, primary_key=True),
        sa.Column("table_version", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.Integer, nullable=False),
        sa.Column("reasons", JSONB, nullable=False),
        sa.Column("incident_ids", JSONB, nullable=False),
        sa.Column("score", sa.Integer, nullable=False),
        sa.Column("series", sa.BigInteger, nullable=False),
        sa.Column("deviating", sa.BigInteger, nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        # Raised by every change; the control plane has taken the verdict when both are equal.
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("reported_revision", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_index("partitions_to_report", "partitions", ["dataset"], postgresql_where=sa.text("reported_revision <> revision"))
    op.create_table(
        "judgements",
        sa.Column("partition_date", sa.Text, primary_key=True),
        # Fingerprint of everything that the judgement followed from.
        sa.Column("fingerprint", sa.Text, nullable=False),
    )
