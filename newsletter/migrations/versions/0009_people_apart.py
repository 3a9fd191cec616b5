"""an index of the few deliveries that went wrong, for the pages of a send"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_APART = (
    "state = 'skipped' OR state = 'rejected' OR state = 'dropped' "
    "OR state = 'bounced' OR state = 'complained'"
)


def upgrade() -> None:
    """One look at each delivery: some seconds for ten million."""
    op.execute(f"UPDATE delivery SET reason = state WHERE reason IS NULL AND ({_APART})")  # noqa: S608
    op.create_index(
        "ix_delivery_apart",
        "delivery",
        ["send_id", "batch", "subscriber_id"],
        sqlite_where=sa.text("reason IS NOT NULL"),
        postgresql_where=sa.text("reason IS NOT NULL"),
    )
