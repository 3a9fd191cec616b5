"""which messages users read and get by email"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0101"
down_revision = "0100"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    for column in (
        sa.Column("read_up_to", _ID, nullable=False, server_default="0"),
        sa.Column("notify", _JSON, nullable=True),
        sa.Column("digest", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("digest_on", sa.String(10), nullable=False, server_default=""),
    ):
        op.add_column("console_user", column)
    # Users had these messages by email.
    op.execute(
        "UPDATE console_user SET read_up_to = (SELECT coalesce(max(id), 0) FROM operator_message)"
    )
    op.create_table(
        "digest_entry",
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("queued_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["console_user.id"],
            name=op.f("fk_digest_entry_user_id_console_user"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["operator_message.id"],
            name=op.f("fk_digest_entry_message_id_operator_message"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "message_id", name=op.f("pk_digest_entry")),
    )
    op.create_index(
        op.f("ix_digest_entry_message_id"), "digest_entry", ["message_id"], unique=False
    )
