"""an issue is public if somebody said so, or it went to all"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("issue") as table:
        table.alter_column(
            "archive", existing_type=sa.Boolean(), nullable=True, server_default=None
        )
    # What is public stays so; of what was not sent yet, nobody had to say anything.
    op.execute("UPDATE issue SET archive = NULL WHERE archive AND published_at IS NULL")
