"""addresses that have to leave the provider's suppression lists; what became of single emails"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "list_removal",
        sa.Column("address_hash", sa.LargeBinary(16), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("own_wish", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("address_hash", name=op.f("pk_list_removal")),
    )
    op.create_index(
        "ix_list_removal_due",
        "list_removal",
        ["next_at"],
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_index(op.f("ix_list_removal_done_at"), "list_removal", ["done_at"])
    op.add_column("notice", sa.Column("outcome", sa.String(20), nullable=False, server_default=""))
    op.add_column(
        "notice", sa.Column("outcome_reason", sa.String(1000), nullable=False, server_default="")
    )
