"""What processes report of resources stands beside them: a report changes no resource."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reports",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("cell", sa.Text, primary_key=True),
        sa.Column("component", sa.Text, primary_key=True),
        sa.Column("instance", sa.Text, primary_key=True),
        # Generation and conditions of this reporter, serialised.
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        # A resource that is deleted and made again begins without a status.
        sa.ForeignKeyConstraint(["kind", "name"], ["resources.kind", "resources.name"], ondelete="CASCADE"),
    )
    op.create_index("reports_by_time", "reports", ["reported_at"])
