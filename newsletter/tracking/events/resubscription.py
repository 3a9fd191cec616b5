"""Ignores a suppression that is older than the subscriber's latest opt-in.

SendGrid reports some events late, and drops emails because of outdated entries of its lists. What
counts is the time of the confirmed signup (subscribers.consent.records). Where the order is not
certain, the suppression holds.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, case, func, or_, select

from newsletter.db.orm import Session, table_of
from newsletter.tracking.events.suppression_policy import Effects
from newsletter.tracking.list_removal import CLOCK_TOLERANCE
from newsletter.tracking.models import Reconciliation
from subscribers.consent import records as consent_records
from subscribers.models import Consent, Subscriber, SuppressionReason

_subscriber, _consent, _run = table_of(Subscriber), table_of(Consent), table_of(Reconciliation)


#: A reconciliation has taken an address off SendGrid's lists at most this long after its start.
_RECONCILED_WITHIN = timedelta(hours=1)


class OptIn(NamedTuple):
    """A subscriber's last confirmed signup."""

    #: When the subscriber requested the confirmation link.
    requested_at: datetime
    at: datetime
    #: When the first finished reconciliation after it began.
    reconciled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Resubscriptions:
    """The last confirmed signups, by subscriber and by the hash of their current address."""

    subscribers: dict[int, OptIn] = field(default_factory=dict)
    addresses: dict[bytes, OptIn] = field(default_factory=dict)

    def since(self) -> dict[bytes, datetime]:
        """Address hash → the time from which on its bounces count."""
        return {hashed: one.at - CLOCK_TOLERANCE for hashed, one in self.addresses.items()}


def opt_ins(
    session: Session, subscriber_ids: Collection[int], address_hashes: Collection[bytes]
) -> Resubscriptions:
    """The last confirmed signups of these subscribers; no query where there are none."""
    resubscriptions = Resubscriptions()
    # An empty list would keep the databases from using an index for the other condition.
    these = [
        *([_subscriber.c.id.in_(subscriber_ids)] if subscriber_ids else []),
        *([_subscriber.c.address_hash.in_(address_hashes)] if address_hashes else []),
    ]
    if not these:
        return resubscriptions
    confirmed = func.max(case((and_(*consent_records.IS_OPT_IN), _consent.c.at)))
    requested = func.max(case((_consent.c.act == "requested", _consent.c.at)))
    last = (
        select(_subscriber.c.id, _subscriber.c.address_hash)
        .add_columns(confirmed.label("at"), requested.label("requested_at"))
        .join(_consent, _consent.c.subscriber_id == _subscriber.c.id)
        .where(or_(*these))
        .group_by(_subscriber.c.id, _subscriber.c.address_hash)
        .having(confirmed.is_not(None))
        .subquery()
    )
    reconciled = (
        select(func.min(_run.c.started_at))
        .where(_run.c.finished_at.is_not(None), _run.c.started_at >= last.c.at)
        .scalar_subquery()
    )
    for row in session.execute(select(last, reconciled.label("reconciled_at"))):
        requested_at = min(row.requested_at or row.at, row.at)
        opted_in = OptIn(requested_at, row.at, row.reconciled_at)
        resubscriptions.subscribers[row.id] = opted_in
        resubscriptions.addresses[row.address_hash] = opted_in
    return resubscriptions


def is_superseded(at: datetime, effects: Effects, opted_in: OptIn | None) -> bool:
    """Whether an event of ``at`` suppresses nobody, because the opt-in came after its cause."""
    if opted_in is None:
        return False
    is_bounce = effects.suppress is SuppressionReason.BOUNCED
    # A link requested before the unsubscribe resubscribes nobody (subscribers.signup).
    if at < (opted_in.at if is_bounce else opted_in.requested_at) - CLOCK_TOLERANCE:
        return True
    # The entry of SendGrid's list may be older than the opt-in, until a reconciliation after the
    # opt-in has removed such an entry.
    reconciled_at = opted_in.reconciled_at
    return effects.listed and (reconciled_at is None or at < reconciled_at + _RECONCILED_WITHIN)
