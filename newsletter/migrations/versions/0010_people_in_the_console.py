"""people found, counted and followed by the console"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    for table, column in (
        ("segment", sa.Column("people", sa.Integer(), nullable=True)),
        ("segment", sa.Column("mailable", sa.Integer(), nullable=True)),
        ("segment", sa.Column("counted_at", _MOMENT, nullable=True)),
        ("suppression", sa.Column("beneath", sa.String(12), nullable=True)),
        ("suppression", sa.Column("beneath_at", _MOMENT, nullable=True)),
    ):
        op.add_column(table, column)
    op.create_table(
        "headcount",
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("people", sa.Integer(), nullable=False),
        sa.Column("counted_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("what", name=op.f("pk_headcount")),
    )
    # The very expressions of subscribers.directory: only those are found.
    plain = '{} COLLATE "C"' if op.get_bind().dialect.name == "postgresql" else "{}"
    for name in ("email", "name"):
        folded = plain.format(name)
        op.execute(f"CREATE INDEX ix_subscriber_folded_{name} ON subscriber (lower({folded}), id)")
    op.drop_index("ix_event_clicks", "event")
    op.create_index("ix_event_subscriber_id_send_id", "event", ["subscriber_id", "send_id"])
    op.create_index("ix_notice_email", "notice", ["email"])
