"""Runs that wait are found in the order in which they are given out."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("runs_waiting", "runs", ["cell", "tier", "number"], postgresql_where=sa.text("state = 'PENDING'"))
