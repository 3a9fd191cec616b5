"""The times of subscribers' last open and click, from events and from imports of our own export."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, bindparam, or_, update

from newsletter.db import bulk_rows
from newsletter.db.orm import Id, Session, UTCDateTime, table_of
from subscribers.models import Subscriber

_subscriber = table_of(Subscriber)


def record(
    session: Session, *, opened: Mapping[int, datetime], clicked: Mapping[int, datetime]
) -> None:
    """Subscriber id → time of the latest event. An earlier time than the stored one is ignored."""
    for column, moments in (
        (_subscriber.c.last_open_at, opened),
        (_subscriber.c.last_click_at, clicked),
    ):
        if moments:
            _record(session, column, moments)


def _record(session: Session, column: Column[Any], moments: Mapping[int, datetime]) -> None:
    row = bulk_rows.table(session, person=Id, moment=UTCDateTime)
    rows = ({"person": key, "moment": at} for key, at in sorted(moments.items()))
    session.execute(
        update(_subscriber)
        .where(_subscriber.c.id == row.c.person, or_(column.is_(None), column < row.c.moment))
        .values({column: row.c.moment}),
        bulk_rows.values(session, rows),
    )


def replace_bot_clicks(
    session: Session, mistaken: Mapping[int, datetime], others: Mapping[int, datetime]
) -> None:
    """Replace a last click that a bot made with the last other click, or with none."""
    session.connection().execute(
        update(_subscriber)
        .where(
            _subscriber.c.id == bindparam("person"),
            _subscriber.c.last_click_at == bindparam("moment"),
        )
        .values(last_click_at=bindparam("other")),
        [
            {"person": person, "moment": at, "other": others.get(person)}
            for person, at in sorted(mistaken.items())
        ],
    )
