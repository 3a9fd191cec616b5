"""Deletes events and deliveries past their retention. Counters and totals of sends stay.

Each step is a transaction of its own, so small that other writers hardly wait. A run may be
interrupted; the next one continues.
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

_recipient, _send = table_of(RecipientCounter), table_of(Send)
_soft = table_of(SoftBounce)
#: Rows in one step, which takes a fifth of a second on SQLite.
_SLICE = 20_000


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long data is kept; None for ever."""

    events: timedelta | None = None
    deliveries: timedelta | None = None
    #: The time within which soft bounces add up.
    soft_bounces: timedelta = timedelta(days=30)


@dataclass(slots=True)
class PruneReport:
    """What a run deleted. Events are counted in rows, on PostgreSQL in partitions of a month."""

    events: int = 0
    issues: int = 0
    deliveries: int = 0


def prune(
    database: Engine,
    policy: RetentionPolicy,
    *,
    now: datetime,
    may_continue: Callable[[], bool] = lambda: True,
) -> PruneReport:
    """Delete data past its retention, until none is left or ``may_continue`` returns False."""
    report = PruneReport()
    with transaction(database) as session:
        event_partitions.prepare(session, now=now)
        # Twice the time, because a bounce that is reported late may add up with earlier ones.
        session.execute(delete(_soft).where(_soft.c.at < now - 2 * policy.soft_bounces))

    def step(remove: Callable[[Session], int]) -> int:
        if not may_continue():
            return 0
        with transaction(database) as session:
            return remove(session)

    if policy.events is not None:
        before = event_partitions.month_start(now - policy.events)
        with transaction(database) as session:
            # Before the first deletion, so that nothing is counted of which a part is deleted.
            event_horizon.move(session, before)
        while some := step(lambda s: event_partitions.remove(s, before=before, at_most=_SLICE)):
            report.events += some
        while step(_delete_recipient_counters):
            pass
    if policy.deliveries is not None:
        with transaction(database) as session:
            issues = summarize.old_issues(session, before=now - policy.deliveries)
            for issue_id in issues:
                summarize.close_issue(session, issue_id, now=now)
        report.issues = len(issues)
    while some := step(lambda s: summarize.delete_deliveries(s, at_most=_SLICE)):
        report.deliveries += some
    return report


def _delete_recipient_counters(session: Session) -> int:
    """Delete a slice of the recipient counters of one send whose counters are final."""
    has_rows = exists(select(1).where(_recipient.c.send_id == _send.c.id))
    old = _send.c.id.in_(event_horizon.final_sends(session))
    send_id = session.scalar(select(_send.c.id).where(old, has_rows).limit(1))
    if send_id is None:
        return 0
    of_send = _recipient.c.send_id == send_id
    # Whole subscribers: each of them has few rows.
    ids = select(_recipient.c.subscriber_id).where(of_send).order_by(_recipient.c.subscriber_id)
    last = session.scalar(ids.offset(_SLICE - 1).limit(1))
    some = of_send if last is None else of_send & (_recipient.c.subscriber_id <= last)
    return changed(session, delete(_recipient).where(some))
