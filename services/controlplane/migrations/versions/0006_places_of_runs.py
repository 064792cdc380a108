"""Workers that keep a place for a run."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The worker that takes nothing else until the run fits, since made_place_at; empty for none.
    op.add_column("runs", sa.Column("place_worker", sa.Text, nullable=False, server_default=""))
