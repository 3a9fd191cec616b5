"""Requests of subscribers that need a confirmation by email.

A new address, a copy of the data, or erasure waits in a Confirmation until the link in that
email is followed: the link used for the request may come from an email that was forwarded.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from newsletter.db.orm import Session, table_of
from newsletter.errors import UserError
from subscribers import rate_limit
from subscribers.consent import former_addresses, suppression
from subscribers.email_address import Address
from subscribers.models import Confirmation, Subscriber
from subscribers.self_service import preferences
from subscribers.self_service.preferences import PreferenceError

_confirmation = table_of(Confirmation)

#: Emails that one subscriber, or one address, gets at their own request within a day.
DAILY_MAILS = 3
_DAY = timedelta(days=1)
#: The same request within this time is a second click on the button.
_REPEAT = timedelta(minutes=5)
#: How long the old address can undo a change of address. In this time neither a copy of the data
#: nor erasure can be requested: a stolen link must not get that far.
UNDO_PERIOD = timedelta(days=7)


class TooManyRequestsError(UserError):
    """The subscriber got as many emails today as their own requests may cause."""


class RequestKind(StrEnum):
    """What a subscriber can request with a confirmation by email."""

    ADDRESS = "address"
    DATA = "data"
    ERASE = "erase"


class AddressChange(StrEnum):
    """The result of a change of address."""

    CHANGED = "changed"
    #: The new address belongs to another subscriber.
    TAKEN = "taken"
    #: The new address is suppressed.
    SUPPRESSED = "suppressed"
    #: The subscriber unsubscribed meanwhile, and stays so at any address.
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class RequestResult:
    """A recorded request; ``send`` says whether to send its email now."""

    confirmation_id: int
    #: The address that has to confirm it.
    email: str
    #: The subscriber's current address.
    current: str
    #: A repeated request: no email is sent.
    repeated: bool
    #: False also for a suppressed address, or one that got enough emails today. The page shows the
    #: same answer: what we know about an address is only its owner's business.
    send: bool


def request(
    session: Session, subscriber_id: int, kind: RequestKind, *, now: datetime, expires: datetime
) -> RequestResult | None:
    """Record a request for data or erasure; None if the subscriber has unsubscribed.

    Raises TooManyRequestsError, and PreferenceError if the email may not reach the subscriber:
    soon after a change of address, or if their address bounced.
    """
    person = preferences.lock(session, subscriber_id)
    current = preferences.view(session, subscriber_id, now=now)
    if person is None or current is None:
        return None
    if current.bounced:
        raise PreferenceError("emails to your address bounced", hint="Change your address first.")
    moved = session.scalar(
        select(func.max(_confirmation.c.done_at)).where(
            _confirmation.c.subscriber_id == subscriber_id,
            _confirmation.c.kind == RequestKind.ADDRESS,
        )
    )
    if moved is not None and moved + UNDO_PERIOD > now:
        raise PreferenceError(
            "your address was changed a few days ago",
            hint=f"To protect you, this can be requested again on {_day(moved + UNDO_PERIOD)}.",
        )
    return _request(
        session, person, kind, (person.email, person.address_hash), now=now, expires=expires
    )


def request_address_change(
    session: Session,
    subscriber_id: int,
    address: Address,
    address_hash: bytes,
    *,
    mailbox_key: bytes | None = None,
    now: datetime,
    expires: datetime,
) -> RequestResult | None:
    """Record a request for another address; None if the subscriber has unsubscribed.

    ``mailbox_key`` is the rate limit of the new address's mailbox; without it, only emails to
    that very address are counted.

    Raises TooManyRequestsError, and PreferenceError if it is their address already.
    """
    person = preferences.lock(session, subscriber_id)
    if person is None or preferences.view(session, subscriber_id, now=now) is None:
        return None
    if address.email == person.email:
        raise PreferenceError("this is your current address", hint="Enter another one.")
    to = (address.email, address_hash)
    return _request(
        session, person, RequestKind.ADDRESS, to, mailbox_key=mailbox_key, now=now, expires=expires
    )


def find(session: Session, confirmation_id: int, *, now: datetime) -> Confirmation | None:
    """A request to show; None if it has expired or its subscriber is gone.

    Signups are not found here: ``subscribers.signup.double_opt_in`` confirms them.
    """
    asked = session.get(Confirmation, confirmation_id)
    if asked is None or asked.kind not in set(RequestKind) or asked.expires_at <= now:
        return None
    return asked


def find_and_lock(session: Session, confirmation_id: int, *, now: datetime) -> Confirmation | None:
    """Like ``find``, to act on it. Locks the subscriber until the transaction ends."""
    asked = find(session, confirmation_id, now=now)
    if asked is None or asked.subscriber_id is None:
        return None
    # Lock the subscriber first, as everywhere: opposite orders would deadlock.
    if preferences.lock(session, asked.subscriber_id) is None:
        return None
    session.expire(asked)
    return find(session, confirmation_id, now=now)


def mark_done(session: Session, asked: Confirmation, *, now: datetime) -> None:
    """Record that the request was carried out; the first time counts."""
    asked.done_at = asked.done_at or now
    session.add(asked)
    session.flush()


def change_address(session: Session, asked: Confirmation, *, now: datetime) -> AddressChange:
    """Give a subscriber the address that was just confirmed; a repeat changes nothing."""
    if asked.done_at is not None:
        return AddressChange.CHANGED
    change = _set_address(session, asked, asked.email, asked.address_hash, now)
    if change is AddressChange.CHANGED:
        # Kept for as long as the old address may undo the change.
        asked.expires_at = now + UNDO_PERIOD
        mark_done(session, asked, now=now)
        # The subscriber's new address got no warning about the other requests.
        pending = (
            _confirmation.c.kind == RequestKind.ADDRESS,
            _confirmation.c.done_at.is_(None),
        )
        _end(session, asked, *pending, now=now)
    return change


def undo_address_change(session: Session, asked: Confirmation, *, now: datetime) -> AddressChange:
    """Undo a change of address from the old address, before it was confirmed or after."""
    change = AddressChange.CHANGED
    if asked.done_at is not None:
        former = asked.asked
        change = _set_address(session, asked, former["email"], bytes.fromhex(former["hash"]), now)
    if change is AddressChange.CHANGED:
        asked.done_at, asked.expires_at = None, now
        session.add(asked)
        session.flush()
        # Requests since then came from whoever had control of the subscription meanwhile.
        _end(session, asked, _confirmation.c.created_at >= asked.created_at, now=now)
    return change


def _end(session: Session, asked: Confirmation, *those: ColumnElement[bool], now: datetime) -> None:
    """End the subscriber's requests that match these conditions, carried out or not."""
    session.execute(
        update(_confirmation)
        .where(
            _confirmation.c.subscriber_id == asked.subscriber_id,
            _confirmation.c.kind.in_(list(RequestKind)),
            *those,
        )
        .values(done_at=None, expires_at=now)
    )


def _set_address(
    session: Session, asked: Confirmation, email: str, address_hash: bytes, now: datetime
) -> AddressChange:
    assert asked.subscriber_id is not None, "find_and_lock() checks this"
    person = preferences.lock(session, asked.subscriber_id)
    if person is None or preferences.view(session, asked.subscriber_id, now=now) is None:
        return AddressChange.LEFT
    if address_hash != person.address_hash and suppression.reason_of(session, address_hash):
        return AddressChange.SUPPRESSED
    before = person.address_hash
    try:
        # The unique key decides: two subscribers may confirm the same address at once.
        with session.begin_nested():
            person.email, person.address_hash = email, address_hash
            session.add(person)
    except IntegrityError:
        return AddressChange.TAKEN
    former_addresses.remove(session, address_hash)
    # An undone change may have been a stranger's, to an address that was never the subscriber's.
    if asked.done_at is None and before != address_hash:
        former_addresses.add(session, before, asked.subscriber_id, at=now)
    preferences.record(
        session, asked.subscriber_id, "confirmed", wording="Address changed", now=now
    )
    return AddressChange.CHANGED


def _request(
    session: Session,
    person: Subscriber,
    kind: RequestKind,
    to: tuple[str, bytes],
    *,
    mailbox_key: bytes | None = None,
    now: datetime,
    expires: datetime,
) -> RequestResult:
    email, address_hash = to
    same = session.scalar(
        select(_confirmation.c.id)
        .where(
            _confirmation.c.subscriber_id == person.id,
            _confirmation.c.kind == kind,
            _confirmation.c.address_hash == address_hash,
            _confirmation.c.done_at.is_(None),
            _confirmation.c.created_at > now - _REPEAT,
            _confirmation.c.expires_at > now,
        )
        .limit(1)
    )
    if same is not None:
        return RequestResult(same, email, person.email, repeated=True, send=False)
    today = session.execute(
        select(_confirmation.c.subscriber_id, _confirmation.c.address_hash, _confirmation.c.kind)
        .where(_confirmation.c.created_at > now - _DAY)
        .where(
            or_(
                _confirmation.c.subscriber_id == person.id,
                _confirmation.c.address_hash == address_hash,
            )
        )
    ).all()
    own = sum(r.subscriber_id == person.id and r.kind in set(RequestKind) for r in today)
    if own >= DAILY_MAILS:
        raise TooManyRequestsError(
            "you got several emails today already",
            hint="Look into your inbox and its spam folder, or come back tomorrow.",
        )
    foreign = address_hash != person.address_hash
    flooded = sum(row.address_hash == address_hash for row in today) >= DAILY_MAILS
    if mailbox_key is not None:
        flooded |= not rate_limit.hit(session, mailbox_key, limit=DAILY_MAILS, window=_DAY, now=now)
    unwanted = suppression.reason_of(session, address_hash) is not None
    asked = Confirmation(
        kind=kind,
        email=email,
        address_hash=address_hash,
        subscriber_id=person.id,
        asked={"email": person.email, "hash": person.address_hash.hex()} if foreign else {},
        created_at=now,
        expires_at=expires,
    )
    session.add(asked)
    session.flush()
    send = not (foreign and (flooded or unwanted))
    return RequestResult(asked.id, email, person.email, repeated=False, send=send)


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"
