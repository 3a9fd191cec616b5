"""Who opted in anew is not barred by what was before, even where it is told only now.

SendGrid tells some things late, and drops mails for what its lists still say. A confirmed
signup (subscribers.consent.records) is the moment that counts. In doubt about the order somebody
stays barred.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, case, func, or_, select

from newsletter.db.orm import Session, table_of
from newsletter.provider.events import Event
from newsletter.tracking.events.attribution import HashOf
from newsletter.tracking.events.policy import effects
from newsletter.tracking.models_reconcile import Reconciliation
from subscribers.consent import records as consent_records
from subscribers.models import Consent, Subscriber, SuppressionReason

_subscriber, _consent, _run = table_of(Subscriber), table_of(Consent), table_of(Reconciliation)

#: SendGrid's clock and ours differ; in doubt about the order nobody is mailed.
CLOCKS = timedelta(minutes=1)
#: So long may a run of reconciling take until it has taken somebody off SendGrid's lists.
_LASTS = timedelta(hours=1)


class OptIn(NamedTuple):
    """Somebody's last confirmed signup."""

    #: When its link was asked for.
    asked: datetime
    at: datetime
    #: The first finished run after it that compared SendGrid's lists with ours.
    compared: datetime | None


@dataclass(frozen=True, slots=True)
class Resubscriptions:
    """The last confirmed signups, by person and by the address that they have now."""

    people: dict[int | None, OptIn] = field(default_factory=dict)
    addresses: dict[bytes, OptIn] = field(default_factory=dict)

    def since(self) -> dict[bytes, datetime]:
        """Address → from when on its bounces count."""
        return {hashed: one.at - CLOCKS for hashed, one in self.addresses.items()}


def opt_ins(session: Session, events: Sequence[Event], hash_of: HashOf) -> Resubscriptions:
    """Of those whom the events would suppress; asks nothing where they suppress nobody."""
    found = Resubscriptions()
    who = [event for event in events if effects(event).suppress is not None]
    people = {event.subscriber_id for event in who} - {None}
    hashes = {hash_of(event.email) for event in who if event.email} - {None}
    # An empty list would keep the databases from using an index for the other.
    these = [
        *([_subscriber.c.id.in_(people)] if people else []),
        *([_subscriber.c.address_hash.in_(hashes)] if hashes else []),
    ]
    if not these:
        return found
    confirmed = func.max(case((and_(*consent_records.IS_OPT_IN), _consent.c.at)))
    asked = func.max(case((_consent.c.act == "requested", _consent.c.at)))
    last = (
        select(_subscriber.c.id, _subscriber.c.address_hash)
        .add_columns(confirmed.label("at"), asked.label("asked"))
        .join(_consent, _consent.c.subscriber_id == _subscriber.c.id)
        .where(or_(*these))
        .group_by(_subscriber.c.id, _subscriber.c.address_hash)
        .having(confirmed.is_not(None))
        .subquery()
    )
    compared = (
        select(func.min(_run.c.started_at))
        .where(_run.c.finished_at.is_not(None), _run.c.started_at >= last.c.at)
        .scalar_subquery()
    )
    for row in session.execute(select(last, compared.label("compared"))):
        one = OptIn(min(row.asked or row.at, row.at), row.at, row.compared)
        found.people[row.id] = found.addresses[row.address_hash] = one
    return found


def is_superseded(event: Event, opted_in: OptIn | None) -> bool:
    """Whether what would suppress somebody was before they opted in anew."""
    if opted_in is None:
        return False
    effect = effects(event)
    # A link requested before the unsubscribe resubscribes nobody (subscribers.signup).
    came = opted_in.at if effect.suppress is SuppressionReason.BOUNCED else opted_in.asked
    if event.at < came - CLOCKS:
        return True
    # What stands on SendGrid's list may be from before; reconciling knows since when it does.
    return effect.listed and (opted_in.compared is None or event.at < opted_in.compared + _LASTS)
