"""Account ids of cases are bytes: an opaque identifier may have characters that a text column refuses."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Existing ids stay what they are, in UTF-8."""
    op.alter_column("cases", "account_id", type_=sa.LargeBinary, postgresql_using="convert_to(account_id, 'UTF8')")
