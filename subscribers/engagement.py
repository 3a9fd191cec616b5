"""When a person last read, as events tell. Only an import of our own export writes it too."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import bindparam, or_, update

from subscribers.models import Subscriber
from subscribers.schema import Session, table_of

_subscriber = table_of(Subscriber)


def record(
    session: Session, *, opened: Mapping[int, datetime], clicked: Mapping[int, datetime]
) -> None:
    """Subscriber id → latest moment; an earlier moment than the known one changes nothing."""
    for column, moments in (
        (_subscriber.c.last_open_at, opened),
        (_subscriber.c.last_click_at, clicked),
    ):
        if moments:
            statement = (
                update(_subscriber)
                .where(
                    _subscriber.c.id == bindparam("person"),
                    or_(column.is_(None), column < bindparam("moment")),
                )
                .values({column: bindparam("moment")})
            )
            rows = [{"person": key, "moment": at} for key, at in sorted(moments.items())]
            session.connection().execute(statement, rows)
