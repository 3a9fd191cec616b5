"""events counted once: figures by day, domain, link and person, soft bounces, keys with the time"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    address = "raw::json ->> 'email'" if postgresql else "json_extract(raw, '$.email')"
    url = "raw::json ->> 'url'" if postgresql else "json_extract(raw, '$.url')"
    # What follows the @: neither database has a plain word for the last part of a text.
    after = (
        f"CASE WHEN {address} LIKE '%@%' THEN split_part({address}, '@', -1) ELSE '' END"
        if postgresql
        else f"CASE WHEN {address} LIKE '%@%' THEN substr({address}, instr({address}, '@') + 1) ELSE '' END"
    )
    op.rename_table("event", "event_before")
    if postgresql:
        op.execute("ALTER TABLE event_before RENAME CONSTRAINT pk_event TO pk_event_before")
    op.drop_index("ix_event_send_id_kind", table_name="event_before")
    op.create_table(
        "event",
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("key", sa.LargeBinary(16), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("issue_id", _ID, nullable=True),
        sa.Column("send_id", _ID, nullable=True),
        sa.Column("batch", sa.Integer(), nullable=True),
        sa.Column("subscriber_id", _ID, nullable=True),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("link", sa.String(500), nullable=False),
        sa.Column("by_machine", sa.Boolean(), nullable=False),
        sa.Column("raw", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("at", "key", name=op.f("pk_event")),
    )
    op.execute(
        f"""
        INSERT INTO event (at, key, kind, received_at, issue_id, send_id, batch, subscriber_id,
                           domain, link, by_machine, raw)
        SELECT at, key, kind, received_at, issue_id, send_id, batch, subscriber_id,
               lower(substr(coalesce({after}, ''), 1, 255)),
               CASE WHEN kind = 'click' THEN substr(coalesce({url}, ''), 1, 500) ELSE '' END,
               by_machine, raw
        FROM event_before
        """  # noqa: S608 (no word of it comes from outside)
    )
    op.drop_table("event_before")
    op.create_index("ix_event_send_id_kind", "event", ["send_id", "kind"])
    clicks = sa.text("kind = 'click'")
    op.create_index(
        "ix_event_clicks",
        "event",
        ["subscriber_id", "send_id"],
        sqlite_where=clicks,
        postgresql_where=clicks,
    )

    op.create_table(
        "part_count",
        sa.Column("send_id", _ID, nullable=False),
        sa.Column("part", sa.String(10), nullable=False),
        sa.Column("value", sa.String(500), nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("send_id", "part", "value", "what", name=op.f("pk_part_count")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "person_count",
        sa.Column("send_id", _ID, nullable=False),
        sa.Column("subscriber_id", _ID, nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("link", sa.String(500), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "send_id", "subscriber_id", "what", "domain", "link", name=op.f("pk_person_count")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "soft_bounce",
        sa.Column("address_hash", sa.LargeBinary(16), nullable=False),
        sa.Column("key", sa.LargeBinary(16), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("address_hash", "key", name=op.f("pk_soft_bounce")),
        sqlite_with_rowid=False,
    )
    _count_again(postgresql=postgresql)


def _count_again(*, postgresql: bool) -> None:
    """No event has been removed up to this version, so the figures can all be made of them."""
    send = "coalesce(send_id, 0)"
    what = (
        "CASE WHEN by_machine AND kind IN ('open', 'click') THEN 'machine_' || kind ELSE kind END"
    )
    day = "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')" if postgresql else "substr(at, 1, 10)"
    done = (
        "CASE kind WHEN 'open' THEN 'opened' WHEN 'click' THEN 'clicked' "
        "WHEN 'spamreport' THEN 'complained' ELSE 'left' END"
    )
    deeds = (
        "FROM event WHERE subscriber_id IS NOT NULL AND NOT (by_machine AND kind IN ('open', 'click')) "
        "AND kind IN ('open', 'click', 'spamreport', 'unsubscribe', 'group_unsubscribe')"
    )
    parts = "INSERT INTO part_count (send_id, part, value, what, count)"
    people = "INSERT INTO person_count (send_id, subscriber_id, what, domain, link, count)"
    op.execute("DELETE FROM send_count")
    for statement in (
        f"INSERT INTO send_count (send_id, what, count) SELECT {send}, {what}, count(*) FROM event GROUP BY 1, 2",  # noqa: S608
        f"{parts} SELECT {send}, 'day', {day}, {what}, count(*) FROM event GROUP BY 1, 3, 4",  # noqa: S608
        f"{parts} SELECT {send}, 'domain', domain, {what}, count(*) FROM event GROUP BY 1, 3, 4",  # noqa: S608
        f"{parts} SELECT {send}, 'link', link, {what}, count(*) FROM event WHERE link <> '' GROUP BY 1, 3, 4",  # noqa: S608
        f"{people} SELECT {send}, subscriber_id, {done}, domain, '', count(*) {deeds} GROUP BY 1, 2, 3, 4",
        f"{people} SELECT {send}, subscriber_id, {done}, domain, link, count(*) {deeds} AND link <> '' GROUP BY 1, 2, 3, 4, 5",
        "INSERT INTO send_count (send_id, what, count) SELECT send_id, what, count(*) FROM person_count WHERE link = '' GROUP BY 1, 2",
        f"{parts} SELECT send_id, 'domain', domain, what, count(*) FROM person_count WHERE link = '' GROUP BY 1, 3, 4",  # noqa: S608
        f"{parts} SELECT send_id, 'link', link, what, count(*) FROM person_count WHERE link <> '' GROUP BY 1, 3, 4",  # noqa: S608
    ):
        op.execute(statement)
