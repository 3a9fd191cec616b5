"""users, sessions and the log of what they did"""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Not written yet."""
