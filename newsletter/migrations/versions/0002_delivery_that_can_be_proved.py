"""delivery that can be proved: timetables, tests of variants, holds, workers, guarded states"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    for name, default in (("excluded", "[]"), ("timetable", "{}"), ("test", "{}"), ("alarm", "{}")):
        op.add_column(
            "send", sa.Column(name, _JSON, nullable=False, server_default=sa.text(f"'{default}'"))
        )
    op.add_column("send", sa.Column("paused_at", _MOMENT, nullable=True))
    op.add_column("send", sa.Column("winner", sa.String(20), nullable=True))
    op.add_column("send", sa.Column("hold_id", sa.String(100), nullable=True))
    op.add_column(
        "send", sa.Column("handed_on", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    json = "jsonb_build_object" if op.get_bind().dialect.name == "postgresql" else "json_object"
    op.execute(f"UPDATE send SET timetable = {json}('per_second', rate) WHERE rate IS NOT NULL")  # noqa: S608
    op.drop_column("send", "rate")

    # A column with its check in one statement: SQLite adds no constraint later.
    op.execute(
        "ALTER TABLE batch ADD COLUMN part VARCHAR(10) NOT NULL DEFAULT 'whole' "
        "CONSTRAINT ck_batch_part CHECK (part IN ('whole', 'sample', 'rest', 'winner'))"
    )
    op.add_column(
        "batch", sa.Column("zone", sa.String(64), nullable=False, server_default=sa.text("''"))
    )
    op.add_column("batch", sa.Column("hold_until", _MOMENT, nullable=True))
    op.add_column(
        "event",
        sa.Column("by_machine", sa.Boolean(), nullable=False, server_default=sa.false()),
    )

    op.create_table(
        "hold",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("until", _MOMENT, nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_hold")),
    )
    op.create_table(
        "worker",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("alive_until", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_worker")),
    )
