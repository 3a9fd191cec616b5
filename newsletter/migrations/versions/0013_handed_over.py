"""how many people of a sent send were handed over, kept"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("send", sa.Column("handed_over", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE send SET handed_over = planned - handed_on - (SELECT count(*) FROM delivery "
        "WHERE delivery.send_id = send.id AND delivery.reason IS NOT NULL "
        "AND delivery.state IN ('skipped', 'rejected')) "
        "WHERE state = 'sent' AND folded_at IS NULL"
    )
