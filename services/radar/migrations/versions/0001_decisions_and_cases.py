"""Decisions, the first of each payment event, and review cases, at most one open per account."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cases",
        sa.Column("case_id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(), nullable=False, unique=True),
        sa.Column("account_id", sa.Text, nullable=False),
        # ReviewCase.State
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.Column("resolved_by", sa.Text, nullable=False, server_default=""),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("one_open_case", "cases", ["account_id"], unique=True, postgresql_where=sa.text("state = 1"))
    op.create_table(
        "decisions",
        sa.Column("payment_event_id", sa.LargeBinary, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        # Standing at the time of the decision.
        sa.Column("standing", sa.LargeBinary, nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("case_id", sa.Text, sa.ForeignKey("cases.case_id")),
    )
    op.create_index("decisions_of_case", "decisions", ["case_id", "decided_at"], postgresql_where=sa.text("case_id IS NOT NULL"))
    op.create_index("decisions_by_time", "decisions", ["decided_at"])
