"""the order of topics, and topics that public pages hide"""

import sqlalchemy as sa
from alembic import op

revision = "0104"
down_revision = "0103"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The defaults are for programs of the previous release, which do not know the columns.
    op.add_column("topic", sa.Column("position", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(
        "topic", sa.Column("hidden", sa.Boolean(), nullable=False, server_default=sa.false())
    )
