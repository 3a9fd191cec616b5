"""what the clock shows when a schedule is due next, which stays when a government moves it"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("schedule", sa.Column("next_wall", sa.DateTime(), nullable=True))
