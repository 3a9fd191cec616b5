"""when an operator last paused, cancelled or went on with a send"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("send", sa.Column("intervened_at", sa.DateTime(timezone=True), nullable=True))
