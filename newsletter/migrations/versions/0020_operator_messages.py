"""what owners and approvers have to be told"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "operator_message",
        sa.Column("id", _ID, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("detail", sa.String(2000), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("emailed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_message")),
        sa.UniqueConstraint("key", name=op.f("uq_operator_message_key")),
    )
    op.create_index(
        "ix_operator_message_waiting",
        "operator_message",
        ["id"],
        sqlite_where=sa.text("emailed_at IS NULL"),
        postgresql_where=sa.text("emailed_at IS NULL"),
    )
