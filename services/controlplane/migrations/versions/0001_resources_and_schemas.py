"""Resources with their change log, schemas with their versions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resources",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "changes",
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        # Null where the resource was deleted.
        sa.Column("body", sa.LargeBinary),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
    )
    op.create_table(
        "schemas",
        sa.Column("schema_id", sa.Integer, sa.Identity(start=1000), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("file_descriptor_set", sa.LargeBinary, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_table(
        "schema_versions",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("schema_id", sa.Integer, sa.ForeignKey("schemas.schema_id"), nullable=False),
    )
