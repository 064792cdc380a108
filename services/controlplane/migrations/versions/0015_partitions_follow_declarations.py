"""Partitions follow what is declared: each cell notes up to which version of the resources that was done."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("partition_cells", sa.Column("declared_version", sa.BigInteger, nullable=False, server_default="0"))
