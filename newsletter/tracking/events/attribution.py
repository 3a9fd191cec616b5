"""Whose mails events speak of: ours, or those of another installation on the same account.

Numbers alone do not tell. Each installation counts from one, and a database that was restored
from a backup gives numbers again that mails on their way carry already. So a mail names the
moment when its send was made. Mails from before they did are known by their address.
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

_send, _delivery, _person = table_of(Send), table_of(Delivery), table_of(Subscriber)

#: The keyed hash of an address as an event spells it; None for what is no address.
HashOf = Callable[[str], bytes | None]
#: (issue, person) → the hash of their address, if we know them, and whether they had the issue.
_People = Mapping[tuple[int | None, int | None], tuple[bytes | None, bool]]


def attribute_events(session: Session, events: Sequence[Event], hash_of: HashOf) -> list[Event]:
    """The events, without our numbers where they are not ours.

    What is said of an address holds whoever wrote to it; of our sends and people a foreign
    mail says nothing.
    """
    sends = _sends(session, {event.send_id for event in events if event.send_id is not None})
    unsure = [event for event in events if not _is_sure(event, sends)]
    if not unsure:
        return list(events)
    people = _people(session, unsure)
    return [
        event if _is_sure(event, sends) else _judged(event, sends, people, hash_of)
        for event in events
    ]


def _is_sure(event: Event, sends: Mapping[int, Row[Any]]) -> bool:
    if event.first_hand or event.send_id is event.subscriber_id is None:
        return True
    send = sends.get(event.send_id or 0)
    if event.made is None or send is None:
        return False
    return send.issue_id == event.issue_id and made_mark(send.created_at) == event.made


def _judged(event: Event, sends: Mapping[int, Row[Any]], people: _People, hash_of: HashOf) -> Event:
    address, had_it = people.get((event.issue_id, event.subscriber_id), (None, False))
    hashed = hash_of(event.email) if event.email else None
    theirs = address is not None and address == hashed
    send = sends.get(event.send_id or 0)
    if event.made is None and send is not None and send.issue_id == event.issue_id:
        # Of whoever had their data erased the delivery stays, until the issue is closed.
        erased = address is None and (had_it or send.summarized_at is not None)
        if theirs or erased:
            return event
    # A send that the database has lost was theirs all the same, if the address says so.
    person = event.subscriber_id if theirs else None
    return replace(event, issue_id=None, send_id=None, batch=None, subscriber_id=person)


def _sends(session: Session, send_ids: Collection[int]) -> dict[int, Row[Any]]:
    if not send_ids:
        return {}
    columns = _send.c.id, _send.c.issue_id, _send.c.created_at, _send.c.summarized_at
    rows = session.execute(select(*columns).where(_send.c.id.in_(sorted(send_ids))))
    return {row.id: row for row in rows}


def _people(session: Session, events: Sequence[Event]) -> _People:
    pairs = {(e.issue_id, e.subscriber_id) for e in events if e.subscriber_id is not None}
    row = bulk_rows.table(session, issue_id=Id, subscriber_id=Id)
    names = ("issue_id", "subscriber_id")
    found = session.execute(
        select(*(row.c[name] for name in names), _person.c.address_hash, _delivery.c.state)
        .select_from(row)
        .outerjoin(_person, _person.c.id == row.c.subscriber_id)
        .outerjoin(_delivery, and_(*(_delivery.c[name] == row.c[name] for name in names))),
        bulk_rows.values(session, (dict(zip(names, pair, strict=True)) for pair in pairs)),
    )
    return {(one[0], one[1]): (one[2], one[3] is not None) for one in found}
