"""Verdicts carry what was measured, and objectives count them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("partition_verdicts", sa.Column("value", sa.Float))
    op.create_table(
        "slo_samples",
        # The Slo, and what it was about then: one that is changed to speak of something else begins anew.
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("slo", "cell", "dataset", "indicator")),
        # UTC, when it was measured.
        sa.Column("day", sa.Date, primary_key=True),
        # Minutes that were measured, and those of them without a bad sample.
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("good", sa.Integer, nullable=False),
        # The last of them, and whether it is good so far.
        sa.Column("minute", TIME, nullable=False),
        sa.Column("minute_good", sa.Boolean, nullable=False),
        sa.Column("measured_since", TIME, nullable=False),
    )
    op.create_index("slo_samples_by_day", "slo_samples", ["day"])
    # An objective of quality counts the verdicts on the partitions of its dataset, whatever the cell.
    quality = sa.text("aspect = 'QUALITY'")
    op.create_index("partition_verdicts_of_quality", "partition_verdicts", ["dataset", "partition_date"], postgresql_where=quality)
