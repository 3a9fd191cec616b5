"""What a person asks for and gets only through a further mail.

A new address, a copy of the data and erasing wait in a Confirmation until the link in
that mail is followed: the link that was used to ask may stand in a mail that was passed on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from newsletter.db.orm import Session, table_of
from newsletter.errors import UserError
from subscribers import rate_limit
from subscribers.consent import former_addresses
from subscribers.email_address import Address
from subscribers.models import Confirmation, Subscriber
from subscribers.self_service.preferences import PreferenceError, held, record, suppressed, view

_confirmation = table_of(Confirmation)

#: Mails that one person, or one address, is sent at their own request within a day.
DAILY_MAILS = 3
_DAY = timedelta(days=1)
#: The same thing asked again so soon is a second press of the button.
_REPEAT = timedelta(minutes=5)
#: For so long a change of address can be taken back from the old address, and neither a copy
#: of the data nor erasing can be asked for: a stolen link must not get that far.
TAKE_BACK = timedelta(days=7)


class AskedTooOftenError(UserError):
    """The person has been sent as many mails today as their own wishes may cause."""


class Request(StrEnum):
    """What takes effect only through a further mail."""

    ADDRESS = "address"
    DATA = "data"
    ERASE = "erase"


class Move(StrEnum):
    """What became of a change of address."""

    MOVED = "moved"
    #: The new address belongs to another subscriber.
    TAKEN = "taken"
    #: The new address must not be mailed.
    SUPPRESSED = "suppressed"
    #: The person has left meanwhile, and stays out under any address.
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class RequestResult:
    """A wish written down; ``mail`` says whether its mail is to leave now."""

    confirmation_id: int
    #: The address that confirms it.
    email: str
    #: The address that the person has now.
    current: str
    #: A repeat: nothing new is to be sent to anybody.
    repeated: bool
    #: False also for an address that must not be mailed or was mailed enough today. Whoever
    #: asked is told the same: what we know about an address is its owner's business.
    mail: bool


def ask(
    session: Session, subscriber_id: int, kind: Request, *, now: datetime, expires: datetime
) -> RequestResult | None:
    """Write down that a person wants their data, or to be erased; None when they have left.

    Raises AskedTooOftenError, and PreferenceError where the mail could not be trusted to
    reach the person: soon after a change of address, or when their mail comes back.
    """
    person = held(session, subscriber_id)
    so_far = view(session, subscriber_id, now=now)
    if person is None or so_far is None:
        return None
    if so_far.bounced:
        raise PreferenceError("mail to your address came back", hint="Change your address first.")
    moved = session.scalar(
        select(func.max(_confirmation.c.done_at)).where(
            _confirmation.c.subscriber_id == subscriber_id,
            _confirmation.c.kind == Request.ADDRESS,
        )
    )
    if moved is not None and moved + TAKE_BACK > now:
        raise PreferenceError(
            "your address was changed a few days ago",
            hint=f"To protect you, this can be asked for again on {_day(moved + TAKE_BACK)}.",
        )
    return _ask(
        session, person, kind, (person.email, person.address_hash), now=now, expires=expires
    )


def ask_address(
    session: Session,
    subscriber_id: int,
    address: Address,
    address_hash: bytes,
    *,
    mailbox_key: bytes | None = None,
    now: datetime,
    expires: datetime,
) -> RequestResult | None:
    """Write down that a person wants another address; None when they have left.

    ``mailbox_key`` stands for the mailbox of the new address in the limits; without it, only
    mails to that very address count.

    Raises AskedTooOftenError, and PreferenceError when it is their address already.
    """
    person = held(session, subscriber_id)
    if person is None or view(session, subscriber_id, now=now) is None:
        return None
    if address.email == person.email:
        raise PreferenceError("this is the address that you have", hint="Give another one.")
    to = (address.email, address_hash)
    return _ask(
        session, person, Request.ADDRESS, to, mailbox_key=mailbox_key, now=now, expires=expires
    )


def find(session: Session, confirmation_id: int, *, now: datetime) -> Confirmation | None:
    """Something asked for, to be looked at; None when it is over or its person is gone.

    A signup is not found here: it is confirmed by ``subscribers.signup.double_opt_in``.
    """
    asked = session.get(Confirmation, confirmation_id)
    if asked is None or asked.kind not in set(Request) or asked.expires_at <= now:
        return None
    return asked


def take(session: Session, confirmation_id: int, *, now: datetime) -> Confirmation | None:
    """The same, to be acted on: nobody else acts for this person until the transaction ends."""
    asked = find(session, confirmation_id, now=now)
    if asked is None or asked.subscriber_id is None:
        return None
    # The person first, as everywhere: two that lock in opposite orders wait for each other.
    if held(session, asked.subscriber_id) is None:
        return None
    session.expire(asked)
    return find(session, confirmation_id, now=now)


def done(session: Session, asked: Confirmation, *, now: datetime) -> None:
    """Write down that what was asked for has happened; the first time counts."""
    asked.done_at = asked.done_at or now
    session.add(asked)
    session.flush()


def change_address(session: Session, asked: Confirmation, *, now: datetime) -> Move:
    """Move a person to the address that has just proved itself; a repeat changes nothing."""
    if asked.done_at is not None:
        return Move.MOVED
    move = _move(session, asked, asked.email, asked.address_hash, now)
    if move is Move.MOVED:
        # Kept for as long as the old address may take it back.
        asked.expires_at = now + TAKE_BACK
        done(session, asked, now=now)
        # The address that the person has now was warned of none of the others.
        waits = _confirmation.c.kind == Request.ADDRESS, _confirmation.c.done_at.is_(None)
        _end(session, asked, *waits, now=now)
    return move


def take_back(session: Session, asked: Confirmation, *, now: datetime) -> Move:
    """End a change of address from the old address, before it has happened or after."""
    move = Move.MOVED
    if asked.done_at is not None:
        former = asked.asked
        move = _move(session, asked, former["email"], bytes.fromhex(former["hash"]), now)
    if move is Move.MOVED:
        asked.done_at, asked.expires_at = None, now
        session.add(asked)
        session.flush()
        # What was asked since then was asked by whoever had the subscription meanwhile.
        _end(session, asked, _confirmation.c.created_at >= asked.created_at, now=now)
    return move


def _end(session: Session, asked: Confirmation, *those: ColumnElement[bool], now: datetime) -> None:
    """End such wishes of the person, whether they have been granted or wait."""
    session.execute(
        update(_confirmation)
        .where(
            _confirmation.c.subscriber_id == asked.subscriber_id,
            _confirmation.c.kind.in_(list(Request)),
            *those,
        )
        .values(done_at=None, expires_at=now)
    )


def _move(
    session: Session, asked: Confirmation, email: str, address_hash: bytes, now: datetime
) -> Move:
    assert asked.subscriber_id is not None, "take() holds the person"
    person = held(session, asked.subscriber_id)
    if person is None or view(session, asked.subscriber_id, now=now) is None:
        return Move.LEFT
    if address_hash != person.address_hash and suppressed(session, address_hash) is not None:
        return Move.SUPPRESSED
    before = person.address_hash
    try:
        # The unique key decides: two people may confirm the same address at once.
        with session.begin_nested():
            person.email, person.address_hash = email, address_hash
            session.add(person)
    except IntegrityError:
        return Move.TAKEN
    former_addresses.take_up(session, address_hash)
    # What is taken back was perhaps a stranger's wish for an address that was never theirs.
    if asked.done_at is None and before != address_hash:
        former_addresses.give_up(session, before, asked.subscriber_id, at=now)
    record(session, asked.subscriber_id, "confirmed", wording="Address changed", now=now)
    return Move.MOVED


def _ask(
    session: Session,
    person: Subscriber,
    kind: Request,
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
        return RequestResult(same, email, person.email, repeated=True, mail=False)
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
    if sum(r.subscriber_id == person.id and r.kind in set(Request) for r in today) >= DAILY_MAILS:
        raise AskedTooOftenError(
            "you were sent several mails today already",
            hint="Look into your inbox and its spam folder, or come back tomorrow.",
        )
    foreign = address_hash != person.address_hash
    flooded = sum(row.address_hash == address_hash for row in today) >= DAILY_MAILS
    if mailbox_key is not None:
        flooded |= not rate_limit.hit(session, mailbox_key, limit=DAILY_MAILS, window=_DAY, now=now)
    unwanted = suppressed(session, address_hash) is not None
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
    mail = not (foreign and (flooded or unwanted))
    return RequestResult(asked.id, email, person.email, repeated=False, mail=mail)


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"
