"""Nothing is sent or planned until every departure log was compared with the database.

Every statement that lets an email leave checks this. A restored database does not know what
was sent since the backup until it has read the departure logs.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, select

from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.models import DepartureLog
from newsletter.sending.states import SETTLED_LOGS

_log = table_of(DepartureLog)

_UNSETTLED = [_log.c.state != state for state in sorted(SETTLED_LOGS)]
#: Whether any departure log keeps all sending waiting.
CLOSED: ColumnElement[bool] = exists(select(1).select_from(_log).where(*_UNSETTLED))


class NotComparedError(SendError):
    """A departure log has not been compared with the database yet."""


def waited_for(session: Session) -> Sequence[DepartureLog]:
    """The departure logs that keep all sending waiting; empty when there are none."""
    return session.scalars(select(DepartureLog).where(*_UNSETTLED).order_by(_log.c.seen_at)).all()


def require_open(session: Session) -> None:
    """Raise NotComparedError as long as any departure log keeps all sending waiting."""
    if logs := waited_for(session):
        raise NotComparedError(
            "nothing is sent until it is known what left before the database was restored",
            place=f"departure log {logs[0].id}",
            hint="newsletter departures says what it waits for, and how to go on.",
        )
