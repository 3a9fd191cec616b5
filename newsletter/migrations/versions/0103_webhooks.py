"""endpoints of other programs, and what is sent to them"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0103"
down_revision = "0102"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", _ID, nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("secret", sa.String(100), nullable=False),
        sa.Column("old_secret", sa.String(100), nullable=False),
        sa.Column("old_secret_until", _MOMENT, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("disabled_at", _MOMENT, nullable=True),
        sa.Column("disabled_reason", sa.String(500), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", _MOMENT, nullable=True),
        sa.Column("not_before", _MOMENT, nullable=False),
        sa.Column("lease", sa.String(32), nullable=False),
        sa.Column("lease_until", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoint")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "webhook_endpoint_event",
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoint.id"],
            name=op.f("fk_webhook_endpoint_event_endpoint_id_webhook_endpoint"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("endpoint_id", "event", name=op.f("pk_webhook_endpoint_event")),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", _ID, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("message_id", sa.String(32), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sa.Column("subscriber_id", _ID, nullable=True),
        sa.Column("email", sa.String(320), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("not_before", _MOMENT, nullable=False),
        sa.Column("sent_at", _MOMENT, nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.String(1000), nullable=False),
        sa.CheckConstraint(
            "state = 'pending' OR state = 'delivered' OR state = 'failed'",
            name=op.f("ck_webhook_delivery_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_webhook_delivery_pending",
        "webhook_delivery",
        ["endpoint_id", "not_before", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        op.f("ix_webhook_delivery_endpoint_id_id"),
        "webhook_delivery",
        ["endpoint_id", "id"],
        unique=False,
    )
    op.create_index(
        "ix_webhook_delivery_subscriber",
        "webhook_delivery",
        ["subscriber_id"],
        unique=False,
        sqlite_where=sa.text("subscriber_id IS NOT NULL"),
        postgresql_where=sa.text("subscriber_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_webhook_delivery_created_at"), "webhook_delivery", ["created_at"], unique=False
    )
