"""what stays when something else changes: a schedule's next time, a revision's series"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What the clock shows when it is due next, whatever moment a government makes that.
    op.add_column("schedule", sa.Column("next_wall", sa.DateTime(), nullable=True))
    op.add_column(
        "revision",
        sa.Column("series", sa.String(100), nullable=False, server_default=sa.text("'letter'")),
    )
    op.execute(
        "UPDATE revision SET series = "
        "(SELECT issue.series FROM issue WHERE issue.id = revision.issue_id)"
    )
