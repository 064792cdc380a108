"""Changes that go from cell to cell."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        # What cells see that are not shown the change; null: nothing, it is new.
        sa.Column("former", sa.LargeBinary),
        # In the order of their turns; the first `shown` of them see it.
        sa.Column("cells", ARRAY(sa.Text), nullable=False),
        sa.Column("shown", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["kind", "name"], ["resources.kind", "resources.name"], ondelete="CASCADE"),
    )
    op.create_index("rollouts_under_way", "rollouts", ["state"], postgresql_where=sa.text("state <> 'DONE'"))
