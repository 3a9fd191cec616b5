"""which batches were sent again while they were in doubt: the policy does so once"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batch", sa.Column("resent", sa.Boolean(), nullable=False, server_default=sa.false())
    )
