"""The schema registry as Confluent has it: types, references, soft deletion, configuration."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("schemas", sa.Column("type", sa.Text, nullable=False, server_default="PROTOBUF"))
    # Empty for schemas of the earlier revision, until the service has printed them.
    op.add_column("schemas", sa.Column("text", sa.Text, nullable=False, server_default=""))
    op.add_column("schemas", sa.Column("refs", JSONB, nullable=False, server_default="[]"))
    op.add_column("schemas", sa.Column("metadata", JSONB))
    op.add_column("schemas", sa.Column("rule_set", JSONB))
    # Who refers to a version is asked before it is deleted.
    op.create_index("schemas_by_reference", "schemas", ["refs"], postgresql_using="gin", postgresql_ops={"refs": "jsonb_path_ops"})
    op.add_column("schema_versions", sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("schema_versions", sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()))
    op.create_index("schema_versions_by_schema", "schema_versions", ["schema_id"])
    op.create_table(
        "subject_settings",
        # A subject, ":.context:" for all of a context, "" for all.
        sa.Column("scope", sa.Text, primary_key=True),
        # Null where a wider scope decides.
        sa.Column("compatibility", sa.Text),
        sa.Column("normalize", sa.Boolean),
        sa.Column("mode", sa.Text),
    )
