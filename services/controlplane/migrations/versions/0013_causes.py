"""Of partitions that are withheld: which are so for their own sake, themselves or what they were made from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # [[dataset, date], ...]
    op.add_column("partitions", sa.Column("causes", JSONB, nullable=False, server_default="[]"))
    op.execute(
        "UPDATE partitions SET causes = jsonb_build_array(jsonb_build_array(dataset, partition_date)) WHERE state IN ('BLOCKED', 'UNKNOWN')"
    )
