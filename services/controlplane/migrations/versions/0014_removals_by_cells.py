"""Removals that go from cell to cell: the rollout outlives the resource."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("rollouts_kind_name_fkey", "rollouts")
    # The resource is not there any more; `former` is what cells see until their turn.
    op.add_column("rollouts", sa.Column("removal", sa.Boolean, nullable=False, server_default=sa.false()))
