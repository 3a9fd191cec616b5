"""an issue is public if somebody said so, or it went to all"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "issue",
        sa.Column("archive_said", sa.Boolean(), nullable=False, server_default=sa.true()),
    )
    # What is public stays so; of what was not sent yet, nobody had to say anything.
    op.execute(
        "UPDATE issue SET archive = false, archive_said = false "
        "WHERE archive AND published_at IS NULL"
    )
