"""an issue is public if somebody said so, or it went to all"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # In steps that SQLite takes without making the table anew: others refer to its rows.
    op.add_column("issue", sa.Column("archive_or_not", sa.Boolean(), nullable=True))
    # What is public stays so; of what was not sent yet, nobody had to say anything.
    op.execute(
        "UPDATE issue SET archive_or_not = archive WHERE NOT archive OR published_at IS NOT NULL"
    )
    op.drop_column("issue", "archive")
    op.alter_column("issue", "archive_or_not", new_column_name="archive")
