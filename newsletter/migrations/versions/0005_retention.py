"""what is kept of old sends: sums of deliveries, and on PostgreSQL a table for each month's events"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("send", sa.Column("folded_at", _MOMENT, nullable=True))
    op.add_column(
        "send", sa.Column("folded", _JSON, nullable=False, server_default=sa.text("'{}'"))
    )
    op.create_table(
        "event_horizon",
        sa.Column("name", sa.String(10), nullable=False),
        sa.Column("before", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_event_horizon")),
    )
    if op.get_bind().dialect.name == "postgresql":
        _by_month()


def _by_month() -> None:
    """PostgreSQL makes no table of parts out of a whole one: the rows move to another."""
    for kind, old in (
        ("TABLE event", "event_whole"),
        ("INDEX pk_event", "pk_event_whole"),
        ("INDEX ix_event_send_id_kind", "ix_event_whole_kind"),
        ("INDEX ix_event_clicks", "ix_event_whole_clicks"),
    ):
        op.execute(f"ALTER {kind} RENAME TO {old}")
    op.execute(
        "CREATE TABLE event (LIKE event_whole, CONSTRAINT pk_event PRIMARY KEY (at, key)) "
        "PARTITION BY RANGE (at)"
    )
    op.execute("CREATE INDEX ix_event_send_id_kind ON event (send_id, kind)")
    op.execute(
        "CREATE INDEX ix_event_clicks ON event (subscriber_id, send_id) WHERE kind = 'click'"
    )
    # For what claims to have happened in any other month.
    op.execute("CREATE TABLE event_other PARTITION OF event DEFAULT")
    now = datetime.now(UTC)
    first = op.get_bind().execute(sa.text("SELECT min(at) FROM event_whole")).scalar() or now
    first = first.astimezone(UTC)
    # Events of the far past are a mistake of somebody's clock.
    month = max((first.year, first.month), (now.year - 5, now.month))
    while month <= _after(_after((now.year, now.month))):
        begin, end = (f"{y:04}-{m:02}-01T00:00Z" for y, m in (month, _after(month)))
        op.execute(
            f"CREATE TABLE event_{month[0]:04}_{month[1]:02} PARTITION OF event "
            f"FOR VALUES FROM ('{begin}') TO ('{end}')"
        )
        month = _after(month)
    op.execute("INSERT INTO event SELECT * FROM event_whole")
    op.execute("DROP TABLE event_whole")


def _after(month: tuple[int, int]) -> tuple[int, int]:
    year, number = month
    return year + number // 12, number % 12 + 1
