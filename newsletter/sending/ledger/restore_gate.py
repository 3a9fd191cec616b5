"""Nothing leaves and nothing is planned until every departure log was compared.

Every statement that lets something leave asks this: of a restored database nobody knows who has
what before the logs have told it.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, select

from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.models import DepartureLog
from newsletter.sending.states import SETTLED_LOGS

_log = table_of(DepartureLog)

_UNSETTLED = [_log.c.state != state for state in sorted(SETTLED_LOGS)]
#: Whether some departure log keeps everything waiting.
CLOSED: ColumnElement[bool] = exists(select(1).select_from(_log).where(*_UNSETTLED))


class NotComparedError(SendError):
    """A departure log has not been compared with the database yet."""


def unsettled_logs(session: Session) -> Sequence[DepartureLog]:
    """The departure logs that keep everything waiting; empty when all is well."""
    return session.scalars(select(DepartureLog).where(*_UNSETTLED).order_by(_log.c.seen_at)).all()


def require_open(session: Session) -> None:
    """Raise NotComparedError as long as some departure log keeps everything waiting."""
    if logs := unsettled_logs(session):
        raise NotComparedError(
            "nothing is sent until it is known what left before the database was restored",
            place=f"departure log {logs[0].id}",
            hint="newsletter departures says what it waits for, and how to go on.",
        )
