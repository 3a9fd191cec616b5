"""Stops planning and sending until every departure log has been compared.

Every statement that lets a batch leave checks this. A restored database does not know what
left after its backup; the departure logs do.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, select

from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.models import DepartureLog
from newsletter.sending.states import SETTLED_LOGS

_log = table_of(DepartureLog)

_UNSETTLED = [_log.c.state != state for state in sorted(SETTLED_LOGS)]
#: The SQL condition that some departure log blocks sending.
CLOSED: ColumnElement[bool] = exists(select(1).select_from(_log).where(*_UNSETTLED))


class NotComparedError(SendError):
    """A departure log has not been compared with the database yet."""


def unsettled_logs(session: Session) -> Sequence[DepartureLog]:
    """The departure logs that block sending; usually none."""
    return session.scalars(select(DepartureLog).where(*_UNSETTLED).order_by(_log.c.seen_at)).all()


def require_open(session: Session) -> None:
    """Raise NotComparedError while a departure log blocks sending."""
    if logs := unsettled_logs(session):
        raise NotComparedError(
            "sending waits until the departure logs are compared with the restored database",
            place=f"departure log {logs[0].id}",
            hint="The list of departure logs says what it waits for, and how to go on.",
        )
