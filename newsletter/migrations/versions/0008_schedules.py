"""schedules and their firings"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("series", sa.String(100), nullable=False),
        sa.Column("rule", sa.String(100), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("own_clock", sa.Boolean(), nullable=False),
        sa.Column("skips", _JSON, nullable=False),
        sa.Column("timetable", _JSON, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("next_at", _MOMENT, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "state IN ('active', 'paused', 'ended')", name=op.f("ck_schedule_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("name", name=op.f("uq_schedule_name")),
    )
    op.create_table(
        "schedule_segment",
        sa.Column("schedule_id", _ID, nullable=False),
        sa.Column("segment_id", _ID, nullable=False),
        sa.Column("excluded", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedule.id"],
            name=op.f("fk_schedule_segment_schedule_id_schedule"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["segment_id"], ["segment.id"], name=op.f("fk_schedule_segment_segment_id_segment")
        ),
        sa.PrimaryKeyConstraint("schedule_id", "segment_id", name=op.f("pk_schedule_segment")),
    )
    op.create_index("ix_schedule_segment_segment_id", "schedule_segment", ["segment_id"])
    op.create_table(
        "firing",
        sa.Column("schedule_id", _ID, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("send_id", _ID, nullable=True),
        sa.CheckConstraint(
            "outcome IN ('sent', 'nothing', 'skipped', 'missed', 'failed')",
            name=op.f("ck_firing_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedule.id"],
            name=op.f("fk_firing_schedule_id_schedule"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["send_id"], ["send.id"], name=op.f("fk_firing_send_id_send")),
        sa.PrimaryKeyConstraint("schedule_id", "due_at", name=op.f("pk_firing")),
    )
    op.create_index("ix_firing_due_at", "firing", ["due_at"])
    op.create_index("ix_firing_send_id", "firing", ["send_id"])
