"""What the state of a partition follows from: verdicts by aspect, runs that make it, overrides; and the order of its changes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
KEY = ("cell", "dataset", "partition_date")


def upgrade() -> None:
    _verdicts()
    _overrides()
    for name in ("override_reason", "override_actor"):
        op.add_column("partitions", sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.add_column("partitions", sa.Column("override_at", TIME))
    op.add_column("partitions", sa.Column("judged_state", sa.Text, nullable=False, server_default=""))
    # The newest run that makes it, 0 for none.
    op.add_column("partitions", sa.Column("run", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("partitions", sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE partitions SET judged_state = state")
    op.execute(
        "UPDATE partitions AS p SET revision = n.revision FROM (SELECT cell, dataset, partition_date, row_number() OVER "
        "(PARTITION BY cell ORDER BY state_changed_at, dataset, partition_date) AS revision FROM partitions) AS n "
        "WHERE (p.cell, p.dataset, p.partition_date) = (n.cell, n.dataset, n.partition_date)"
    )
    op.create_index("partitions_by_revision", "partitions", ["cell", "revision"])
    # The last revision of a cell; whoever changes its partitions holds the row, so that revisions become visible in their order.
    op.create_table("partition_cells", sa.Column("cell", sa.Text, primary_key=True), sa.Column("revision", sa.BigInteger, nullable=False))
    op.execute("INSERT INTO partition_cells SELECT cell, max(revision) FROM partitions GROUP BY cell")
    # The state that the partitions which a run makes were last told of.
    op.add_column("runs", sa.Column("told_state", sa.Text, nullable=False, server_default=""))
    op.create_index("runs_making", "runs", ["cell", "partition_date"], postgresql_where=sa.text("produces <> '{}'"))
    untold = sa.text("produces <> '{}' AND told_state <> state")
    op.create_index("runs_untold", "runs", ["number"], postgresql_where=untold)


def _verdicts() -> None:
    op.create_table(
        "partition_verdicts",
        *(sa.Column(name, sa.Date if name == "partition_date" else sa.Text, primary_key=True) for name in KEY),
        sa.Column("aspect", sa.Text, primary_key=True),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("table_version", sa.BigInteger, nullable=False),
        sa.Column("reasons", ARRAY(sa.Text), nullable=False),
        sa.Column("incident_ids", ARRAY(sa.Text), nullable=False),
        sa.Column("reported_at", TIME, nullable=False),
    )
    # Until now a partition had one verdict, of its quality, and its state was that.
    op.execute(
        "INSERT INTO partition_verdicts SELECT cell, dataset, partition_date, 'QUALITY', CASE WHEN state = 'BLOCKED' THEN 'FAIL' "
        "WHEN state = 'UNKNOWN' THEN 'UNKNOWN' WHEN reasons[1] LIKE 'not judged: %' THEN 'NOT_JUDGED' ELSE 'PASS' END, table_version, "
        "ARRAY(SELECT regexp_replace(reason, '^not judged: ', '') FROM unnest(reasons) AS reason), incident_ids, state_changed_at "
        "FROM partitions"
    )


def _overrides() -> None:
    op.create_table(
        "partition_overrides",
        sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
        *(sa.Column(name, sa.Date if name == "partition_date" else sa.Text, nullable=False) for name in KEY),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("withdrawn_at", TIME),
        sa.Column("withdrawn_by", sa.Text, nullable=False, server_default=""),
        sa.Column("withdrawn_because", sa.Text, nullable=False, server_default=""),
    )
    op.create_index(
        "partition_overrides_that_hold", "partition_overrides", KEY, unique=True, postgresql_where=sa.text("withdrawn_at IS NULL")
    )
    op.create_index("partition_overrides_by_cell", "partition_overrides", ["cell", "number"])
