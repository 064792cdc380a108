"""The change log says who, and what the plan showed; past states are found by kind and name."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("changes", sa.Column("actor", sa.Text, nullable=False, server_default=""))
    # Null for a change of status.
    op.add_column("changes", sa.Column("shown", sa.LargeBinary))
    op.create_index("changes_of_resource", "changes", ["kind", "name", "version"])
    op.create_index("changes_by_time", "changes", ["at"])
