"""What is kept of old sends: figures for good, events and deliveries for a time.

Each step is a transaction of its own, small enough that writers beside it hardly wait, and
may be interrupted: the next run goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, exists, select

from newsletter.db.engine import transaction
from newsletter.db.orm import Session, changed, table_of
from newsletter.sending.ledger import summarize
from newsletter.sending.models import Send
from newsletter.tracking import event_horizon
from newsletter.tracking.models import RecipientCounter, SoftBounce
from newsletter.tracking.retention import event_partitions

_person, _send = table_of(RecipientCounter), table_of(Send)
_soft = table_of(SoftBounce)
#: Rows in a step: a fifth of a second on SQLite.
_SLICE = 20_000


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """For how long; None for ever."""

    events: timedelta | None = None
    deliveries: timedelta | None = None
    #: A soft bounce can add up with others within this time.
    soft_bounces: timedelta = timedelta(days=30)


@dataclass(slots=True)
class PruneReport:
    """What a run removed. Of events: rows, on PostgreSQL tables of a month each."""

    events: int = 0
    issues: int = 0
    deliveries: int = 0


def prune(
    database: Engine,
    keep: RetentionPolicy,
    *,
    now: datetime,
    going_on: Callable[[], bool] = lambda: True,
) -> PruneReport:
    """Remove what is older than it is kept for, until all is gone or ``going_on`` says no."""
    done = PruneReport()
    with transaction(database) as session:
        event_partitions.prepare(session, now=now)
        # One that comes late may still add up with one from before it.
        session.execute(delete(_soft).where(_soft.c.at < now - 2 * keep.soft_bounces))

    def step(remove: Callable[[Session], int]) -> int:
        if not going_on():
            return 0
        with transaction(database) as session:
            return remove(session)

    if keep.events is not None:
        before = event_partitions.first_of(now - keep.events)
        with transaction(database) as session:
            # First of all, so that from now on nothing is counted of which a part is gone.
            event_horizon.move(session, before)
        while some := step(lambda s: event_partitions.remove(s, before=before, at_most=_SLICE)):
            done.events += some
        while step(_forget_people):
            pass
    if keep.deliveries is not None:
        with transaction(database) as session:
            issues = summarize.old_issues(session, before=now - keep.deliveries)
            for issue_id in issues:
                summarize.close_issue(session, issue_id, now=now)
        done.issues = len(issues)
    while some := step(lambda s: summarize.delete_deliveries(s, at_most=_SLICE)):
        done.deliveries += some
    return done


def _forget_people(session: Session) -> int:
    """Remove who did what with the mails of one send whose figures are final."""
    left = exists(select(1).where(_person.c.send_id == _send.c.id))
    old = _send.c.id.in_(event_horizon.final(session))
    send_id = session.scalar(select(_send.c.id).where(old, left).limit(1))
    if send_id is None:
        return 0
    of_send = _person.c.send_id == send_id
    # People in turn: the rows of one are few.
    ids = select(_person.c.subscriber_id).where(of_send).order_by(_person.c.subscriber_id)
    last = session.scalar(ids.offset(_SLICE - 1).limit(1))
    some = of_send if last is None else of_send & (_person.c.subscriber_id <= last)
    return changed(session, delete(_person).where(some))
