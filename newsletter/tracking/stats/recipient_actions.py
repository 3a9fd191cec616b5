"""Lists of the recipients of a send who opened, clicked, did not open, or bounced.

They come from the counters of recipients, so each list is as long as the figure of the send says:
opens and clicks by bots do not count. Each page is read by key from an index, so that the
last page of a million costs as much as the first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, Select, exists, func, literal, select

from newsletter.db.engine import reading
from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.models import Delivery, Send
from newsletter.sending.states import DeliveryState
from newsletter.tracking.event_horizon import final_sends
from newsletter.tracking.models import RecipientCounter, VariantCounter
from subscribers.models import Subscriber

_action, _part = table_of(RecipientCounter), table_of(VariantCounter)
_delivery, _subscriber = table_of(Delivery), table_of(Subscriber)

#: Recipients read at once for a list of all.
_CHUNK = 5_000


class RecipientAction(StrEnum):
    """What the recipients of a list did."""

    OPENED = "opened"
    CLICKED = "clicked"
    NOT_OPENED = "not-opened"
    BOUNCED = "bounced"


#: The counter of recipients (newsletter.tracking.stats.counters) that a list reads.
_COUNTERS = {
    RecipientAction.OPENED: "opened",
    RecipientAction.CLICKED: "clicked",
    RecipientAction.NOT_OPENED: "opened",
    RecipientAction.BOUNCED: "people_bounced",
}
#: States of deliveries whose recipient could open the email.
_RECEIVED = (DeliveryState.ACCEPTED, DeliveryState.DELIVERED, DeliveryState.COMPLAINED)


@dataclass(frozen=True, slots=True)
class ActiveRecipient:
    """A recipient in a list."""

    id: int
    #: None if the subscriber was erased.
    email: str | None
    #: The state of the delivery; None if the delivery is deleted, or moved to another send.
    state: str | None
    reason: str | None
    #: How often they did it; 0 for those who did not.
    times: int
    #: Link → clicks, in a list of those who clicked.
    links: dict[str, int]


def unavailable(session: Session, send: Send, action: RecipientAction) -> SendError | None:
    """Why there is no list of those who did this; None if there is one.

    An empty list would be wrong where it was not measured, or is deleted.
    """
    place = f"send {send.id}"
    opens = action in {RecipientAction.OPENED, RecipientAction.NOT_OPENED}
    if (opens and not send.track_opens) or (
        action is RecipientAction.CLICKED and not send.track_clicks
    ):
        what = "opens" if opens else "clicks"
        return SendError(f"{what} were not measured in this send", place=place)
    is_deleted = bool(final_sends(session, [send.id]))
    if action is RecipientAction.NOT_OPENED:
        is_deleted |= send.summarized_at is not None
    if is_deleted:
        return SendError(
            "this list is deleted, after its retention time",
            place=place,
            hint="The totals of the send remain.",
        )
    return None


def require_link(session: Session, send: Send, link: str) -> None:
    """Raise SendError if nobody clicked this link in the send, which may be a mistyped link."""
    of_link = (_part.c.send_id == send.id, _part.c.part == "link", _part.c.value == link)
    if not session.scalar(select(exists(select(1).where(*of_link)))):
        raise SendError(
            "nobody clicked this link",
            place=f"send {send.id}",
            hint="Write the whole address, as in the figures of the send.",
        )


def page(
    session: Session,
    send: Send,
    action: RecipientAction,
    *,
    link: str = "",
    after: int = 0,
    limit: int,
) -> Sequence[ActiveRecipient]:
    """The next recipients after the subscriber with the id ``after``, in order of id.

    ``link`` limits those who clicked to those of one link.
    """
    is_click = action is RecipientAction.CLICKED
    if action is RecipientAction.NOT_OPENED:
        statement = _inactive(send, after, limit)
    else:
        statement = _active(send, _COUNTERS[action], link if is_click else "", after, limit)
    rows = session.execute(statement).all()
    links = _links_of(session, send.id, [row.id for row in rows]) if is_click else {}
    return [
        ActiveRecipient(
            row.id, row.email, row.state, row.reason, int(row.times), links.get(row.id, {})
        )
        for row in rows
    ]


def everyone(
    database: Engine, send: Send, action: RecipientAction, *, link: str = ""
) -> Iterator[ActiveRecipient]:
    """All recipients of the list, a few thousand at a time.

    Each read is a short transaction of its own, because the reader may be slow.
    """
    after = 0
    while True:
        with reading(database) as session:
            some = page(session, send, action, link=link, after=after, limit=_CHUNK)
        yield from some
        if len(some) < _CHUNK:
            return
        after = some[-1].id


def _active(send: Send, counter: str, link: str, after: int, limit: int) -> Select[Any]:
    # Grouped, because a subscriber with addresses at two domains has two counters.
    did = (
        select(_action.c.subscriber_id, func.sum(_action.c.count).label("times"))
        .where(
            _action.c.send_id == send.id,
            _action.c.subscriber_id > after,
            _action.c.what == counter,
            _action.c.link == link,
            _action.c.count > 0,
        )
        .group_by(_action.c.subscriber_id)
        .order_by(_action.c.subscriber_id)
        .limit(limit)
        .subquery("did")
    )
    of_delivery = (
        (_delivery.c.issue_id == send.issue_id)
        & (_delivery.c.subscriber_id == did.c.subscriber_id)
        & (_delivery.c.send_id == send.id)
    )
    return (
        select(
            did.c.subscriber_id.label("id"),
            _subscriber.c.email,
            _delivery.c.state,
            _delivery.c.reason,
            did.c.times,
        )
        .select_from(
            did.outerjoin(_subscriber, _subscriber.c.id == did.c.subscriber_id).outerjoin(
                _delivery, of_delivery
            )
        )
        .order_by(did.c.subscriber_id)
    )


def _inactive(send: Send, after: int, limit: int) -> Select[Any]:
    did = exists(
        select(1).where(
            _action.c.send_id == send.id,
            _action.c.subscriber_id == _delivery.c.subscriber_id,
            _action.c.what == _COUNTERS[RecipientAction.OPENED],
            _action.c.link == "",
            _action.c.count > 0,
        )
    )
    without = (
        select(_delivery.c.subscriber_id, _delivery.c.state, _delivery.c.reason)
        .where(
            _delivery.c.issue_id == send.issue_id,
            _delivery.c.subscriber_id > after,
            _delivery.c.send_id == send.id,
            _delivery.c.state.in_(_RECEIVED),
            ~did,
        )
        .order_by(_delivery.c.subscriber_id)
        .limit(limit)
        .subquery("without")
    )
    return (
        select(
            without.c.subscriber_id.label("id"),
            _subscriber.c.email,
            without.c.state,
            without.c.reason,
            literal(0).label("times"),
        )
        .select_from(without.outerjoin(_subscriber, _subscriber.c.id == without.c.subscriber_id))
        .order_by(without.c.subscriber_id)
    )


def _links_of(
    session: Session, send_id: int, subscriber_ids: Sequence[int]
) -> dict[int, dict[str, int]]:
    rows = session.execute(
        select(_action.c.subscriber_id, _action.c.link, func.sum(_action.c.count))
        .where(
            _action.c.send_id == send_id,
            _action.c.subscriber_id.in_(subscriber_ids),
            _action.c.what == _COUNTERS[RecipientAction.CLICKED],
            _action.c.link != "",
            _action.c.count > 0,
        )
        .group_by(_action.c.subscriber_id, _action.c.link)
        .order_by(_action.c.subscriber_id, _action.c.link)
    )
    links: dict[int, dict[str, int]] = {}
    for subscriber_id, link, clicks in rows:
        links.setdefault(subscriber_id, {})[link] = int(clicks)
    return links
