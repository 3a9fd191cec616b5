"""Finds the send and recipient of an event; events of other installations lose these IDs.

The IDs alone are ambiguous: each installation on a SendGrid account counts from one, and a
restored database gives IDs again that emails on their way carry already. So an email also carries
the time when its send was created. Where it does not, the recipient's address decides.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, and_, select

from newsletter.db import bulk_rows
from newsletter.db.orm import Id, Session, table_of
from newsletter.provider.events import Event, made_mark
from newsletter.sending.models import Delivery, Send
from subscribers.models import Subscriber

_send, _delivery, _subscriber = table_of(Send), table_of(Delivery), table_of(Subscriber)

#: The keyed hash of an address in any spelling; None for an invalid address.
HashOf = Callable[[str], bytes | None]
#: (issue, subscriber) → the hash of the subscriber's address, None for no such subscriber; and
#: whether there is a delivery.
_Recipients = Mapping[tuple[int | None, int | None], tuple[bytes | None, bool]]


def attribute_events(session: Session, events: Sequence[Event], hash_of: HashOf) -> list[Event]:
    """The events, with their IDs removed where they are not of our sends.

    An event of a foreign email says nothing about our sends and subscribers. What it says about
    the address holds, whoever sent the email.
    """
    sends = _sends(session, {event.send_id for event in events if event.send_id is not None})
    uncertain = [event for event in events if not _is_certain(event, sends)]
    if not uncertain:
        return list(events)
    recipients = _recipients(session, uncertain)
    return [
        event if _is_certain(event, sends) else _by_address(event, sends, recipients, hash_of)
        for event in events
    ]


def _is_certain(event: Event, sends: Mapping[int, Row[Any]]) -> bool:
    if event.first_hand or event.send_id is event.subscriber_id is None:
        return True
    send = sends.get(event.send_id or 0)
    if event.made is None or send is None:
        return False
    return send.issue_id == event.issue_id and made_mark(send.created_at) == event.made


def _by_address(
    event: Event, sends: Mapping[int, Row[Any]], recipients: _Recipients, hash_of: HashOf
) -> Event:
    address, has_delivery = recipients.get((event.issue_id, event.subscriber_id), (None, False))
    hashed = hash_of(event.email) if event.email else None
    same_address = address is not None and address == hashed
    send = sends.get(event.send_id or 0)
    if event.made is None and send is not None and send.issue_id == event.issue_id:
        # The delivery of an erased subscriber stays until the issue is summarized.
        erased = address is None and (has_delivery or send.summarized_at is not None)
        if same_address or erased:
            return event
    # The database may have lost the send in a restore. The email was this subscriber's, if the
    # address is theirs.
    subscriber = event.subscriber_id if same_address else None
    return replace(event, issue_id=None, send_id=None, batch=None, subscriber_id=subscriber)


def _sends(session: Session, send_ids: Collection[int]) -> dict[int, Row[Any]]:
    if not send_ids:
        return {}
    columns = _send.c.id, _send.c.issue_id, _send.c.created_at, _send.c.summarized_at
    rows = session.execute(select(*columns).where(_send.c.id.in_(sorted(send_ids))))
    return {row.id: row for row in rows}


def _recipients(session: Session, events: Sequence[Event]) -> _Recipients:
    pairs = {(e.issue_id, e.subscriber_id) for e in events if e.subscriber_id is not None}
    row = bulk_rows.table(session, issue_id=Id, subscriber_id=Id)
    names = ("issue_id", "subscriber_id")
    rows = session.execute(
        select(*(row.c[name] for name in names), _subscriber.c.address_hash, _delivery.c.state)
        .select_from(row)
        .outerjoin(_subscriber, _subscriber.c.id == row.c.subscriber_id)
        .outerjoin(_delivery, and_(*(_delivery.c[name] == row.c[name] for name in names))),
        bulk_rows.values(session, (dict(zip(names, pair, strict=True)) for pair in pairs)),
    )
    return {(one[0], one[1]): (one[2], one[3] is not None) for one in rows}
