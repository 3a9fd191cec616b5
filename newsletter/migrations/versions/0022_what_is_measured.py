"""what was measured of a send: until now every request switched the tracking of clicks off"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of the sends that there are, opens were measured and clicks were not.
    op.add_column(
        "send",
        sa.Column("track_clicks", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "send", sa.Column("track_opens", sa.Boolean(), nullable=False, server_default=sa.true())
    )
    op.add_column("schedule", sa.Column("track_clicks", sa.Boolean(), nullable=True))
    op.add_column("schedule", sa.Column("track_opens", sa.Boolean(), nullable=True))
