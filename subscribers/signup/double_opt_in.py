"""Signing up: what was asked waits, outside the audience, until its link is confirmed.

Whether an address is known shows nowhere: every request takes the same statements, and
whoever asks learns what the mail says only by reading it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select

from newsletter.db.orm import Session, insert_into, table_of
from newsletter.errors import UserError
from subscribers import rate_limit
from subscribers.consent import former_addresses, suppression, topics
from subscribers.consent.records import Act, record
from subscribers.email_address import hash_address
from subscribers.models import (
    Confirmation,
    Subscriber,
    Subscription,
    Suppression,
    SuppressionReason,
    Topic,
)
from subscribers.signup.form import Signup
from subscribers.signup.mailboxes import mailbox_of

_subscriber, _suppression = table_of(Subscriber), table_of(Suppression)
_subscription, _topic = table_of(Subscription), table_of(Topic)
_confirmation = table_of(Confirmation)

_DAY = timedelta(days=1)
_KIND = "signup"
#: Who has gone by their own wish comes back by a link only if they asked for it afterwards.
_WENT = {
    SuppressionReason.UNSUBSCRIBED,
    SuppressionReason.COMPLAINED,
    SuppressionReason.ERASED,
}
#: These addresses get one confirmation email a day, however many the settings allow.
_LISTED = {SuppressionReason.BOUNCED, SuppressionReason.COMPLAINED}


class SignupLinkError(UserError):
    """The link of a confirmation mail that can no longer be followed."""


class ConfirmationEmail(StrEnum):
    """Which mail answers a signup."""

    #: Press the button to subscribe.
    CONFIRM = "confirm"
    #: You are subscribed already; here is where to change it.
    KNOWN = "known"
    #: You are subscribed now. Without double opt-in only.
    WELCOME = "welcome"


@dataclass(frozen=True, slots=True)
class SignupResult:
    """A signup written down."""

    confirmation_id: int
    mail: ConfirmationEmail
    #: Whether the mail is to leave. The answer on the web is the same if it does not.
    send: bool
    #: The subscriber, for any mail but ``CONFIRM``.
    subscriber_id: int | None
    expires: datetime


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A signup that was confirmed."""

    subscriber_id: int
    address_hash: bytes
    email: str
    #: Whether the address was suppressed until now.
    came_back: bool


def request(
    session: Session,
    signup: Signup,
    *,
    address_key: bytes,
    now: datetime,
    confirm_within: timedelta,
    per_address: int,
    double_opt_in: bool = True,
) -> SignupResult:
    """Write a signup down; says which mail is to leave, if any.

    A mailbox, by whichever of its addresses, gets ``per_address`` mails a day, whoever asks for
    them, one when it bounced or its owner complained, and none when an operator has barred it.
    Without ``double_opt_in``,
    somebody new is subscribed at once, but not who has left, bounced or changed to another
    address: they have to prove that it is them who come back.
    """
    address_hash = hash_address(address_key, signup.address)
    barred = _barred(session, address_hash)
    limit = rate_limit.key_of(address_key, rate_limit.SINGLE_MAILS, mailbox_of(signup.address))
    # The email passes the provider's lists, so whoever asks for it reaches one who complained.
    a_day = min(per_address, 1) if barred in _LISTED else per_address
    within = rate_limit.hit(session, limit, limit=a_day, window=_DAY, now=now)
    person = session.execute(
        select(_subscriber.c.id, _subscriber.c.confirmed_at).where(
            _subscriber.c.address_hash == address_hash
        )
    ).one_or_none()
    known = person is not None and person.confirmed_at is not None and barred is None
    # Who gave the address up would get each issue twice by a stranger's word.
    given_up = former_addresses.is_given_up(session, address_hash)
    open_door = not double_opt_in and barred is None and not given_up
    waits = within and not known and not open_door and barred != SuppressionReason.MANUAL
    asked = Confirmation(
        kind=_KIND,
        email=signup.address.email,
        address_hash=address_hash,
        asked=_asked(signup),
        created_at=now,
        # The row is there in any case, for equal work; nothing leads to one that is over.
        expires_at=now + confirm_within if waits else now,
    )
    session.add(asked)
    session.flush()
    subscriber_id = person.id if person is not None else None
    if not double_opt_in:
        # Done for everybody and undone where it may not be: again for equal work.
        with session.begin_nested() as point:
            made = _enrol(session, asked, now=now, proof=None)
            if open_door and not known:
                subscriber_id = made
            else:
                point.rollback()
    mail = (
        ConfirmationEmail.KNOWN
        if known
        else ConfirmationEmail.WELCOME
        if open_door
        else ConfirmationEmail.CONFIRM
    )
    return SignupResult(
        asked.id,
        mail,
        within and barred != SuppressionReason.MANUAL,
        None if mail is ConfirmationEmail.CONFIRM else subscriber_id,
        asked.expires_at,
    )


def find(session: Session, confirmation_id: int, *, now: datetime) -> Confirmation:
    """A signup to be looked at; SignupLinkError when there is none, or it is over."""
    asked = _usable(session.get(Confirmation, confirmation_id), now)
    if asked.done_at is not None:
        _refuse_gone(_barred(session, asked.address_hash))
    return asked


def confirm(
    session: Session,
    confirmation_id: int,
    *,
    now: datetime,
    ip: str | None,
    user_agent: str | None,
) -> Confirmed:
    """Subscribe who asked. A second time changes nothing.

    Whoever left, bounced or complained before they asked can be mailed again. Raises
    SignupLinkError, also for those who left after asking or after the first time, and for those
    an operator barred.
    """
    address_hash = find(session, confirmation_id, now=now).address_hash
    # The person first, as everywhere: two that lock in opposite orders wait for each other.
    session.execute(
        select(_subscriber.c.id).where(_subscriber.c.address_hash == address_hash).with_for_update()
    )
    asked = _usable(
        session.get(Confirmation, confirmation_id, with_for_update=True, populate_existing=True),
        now,
    )
    barred = session.execute(
        select(_suppression.c.reason, _suppression.c.at)
        .where(_suppression.c.address_hash == address_hash)
        .with_for_update()
    ).one_or_none()
    if asked.done_at is not None and asked.subscriber_id is not None:
        _refuse_gone(barred.reason if barred is not None else None)
        return Confirmed(asked.subscriber_id, address_hash, asked.email, came_back=False)
    if barred is not None and barred.reason == SuppressionReason.MANUAL:
        raise SignupLinkError(
            "this address cannot be subscribed", hint="Write to the editors if this is a mistake."
        )
    if barred is not None and barred.reason in _WENT and barred.at > asked.created_at:
        raise SignupLinkError(
            "you have left since this link was sent", hint="Subscribe again to get a new one."
        )
    if former_addresses.is_given_up(session, address_hash, since=asked.created_at):
        # Who has another address since would get each issue at both.
        raise SignupLinkError(
            "this address was given up for another one since this link was sent",
            hint="Subscribe again to get a new one.",
        )
    proof = Act(now, "confirmed", ip=ip, user_agent=user_agent)
    subscriber_id = _enrol(session, asked, now=now, proof=proof)
    suppression.lift(session, [address_hash])
    former_addresses.take_up(session, address_hash)
    asked.done_at, asked.subscriber_id = now, subscriber_id
    session.add(asked)
    session.flush()
    return Confirmed(subscriber_id, address_hash, asked.email, came_back=barred is not None)


def sweep(session: Session, *, now: datetime) -> int:
    """Forget what was asked and whose time is over, done or not; returns how many."""
    result = session.execute(delete(_confirmation).where(_confirmation.c.expires_at <= now))
    return result.rowcount  # type: ignore[attr-defined,no-any-return]


def _usable(asked: Confirmation | None, now: datetime) -> Confirmation:
    if asked is None or asked.kind != _KIND:
        raise SignupLinkError("there is nothing to confirm here", hint="Subscribe again.")
    if asked.expires_at <= now:
        raise SignupLinkError("this link has expired", hint="Subscribe again to get a new one.")
    return asked


def _refuse_gone(reason: str | None) -> None:
    """Raise SignupLinkError where a link that did its work would say what is no longer true."""
    match reason:
        case None:
            return
        case SuppressionReason.MANUAL:
            raise SignupLinkError(
                "you get no mail any more", hint="Write to the editors if this is a mistake."
            )
        case SuppressionReason.BOUNCED:
            raise SignupLinkError(
                "mail to your address came back, so it gets no more",
                hint="Subscribe again when it works.",
            )
    raise SignupLinkError(
        "you have left since this link was used", hint="Subscribe again to come back."
    )


def _barred(session: Session, address_hash: bytes) -> str | None:
    return session.scalar(
        select(_suppression.c.reason).where(_suppression.c.address_hash == address_hash)
    )


def _asked(signup: Signup) -> dict[str, Any]:
    return {
        "name": signup.name,
        "topics": list(signup.topics),
        "attributes": dict(signup.attributes),
        "language": signup.language,
        "timezone": signup.timezone,
        "form": signup.form,
        "wording": signup.wording,
        "ip": signup.ip,
        "agent": signup.user_agent,
    }


def _enrol(session: Session, asked: Confirmation, *, now: datetime, proof: Act | None) -> int:
    """Put the person into the audience, or what they asked for to what is known of them."""
    wish = asked.asked
    source = f"form:{wish['form']}"
    found = session.execute(
        select(_subscriber)
        .where(_subscriber.c.address_hash == asked.address_hash)
        .with_for_update()
    ).one_or_none()
    # In force from the first proof on; who comes back proves it anew.
    back = _barred(session, asked.address_hash) is not None
    before: dict[str, Any] = dict(found._mapping) if found is not None else {}
    since = None if back else before.get("confirmed_at")
    values = {
        "email": asked.email,
        "name": wish["name"] or before.get("name", ""),
        "attributes": {**before.get("attributes", {}), **wish["attributes"]},
        "language": wish["language"] or before.get("language"),
        "timezone": wish["timezone"] or before.get("timezone"),
        "confirmed_at": since or now,
        "paused_until": None if back else before.get("paused_until"),
    }
    # Who comes back is no newcomer, though only a hash was kept of them (erased, say): a row
    # that is older than their proof tells them apart, for good (newsletter's reconciling).
    created_at = asked.created_at if back else now
    added = insert_into(session, _subscriber).values(
        address_hash=asked.address_hash, source=source, created_at=created_at, **values
    )
    # The unique key decides: two links of one address may be followed at once.
    subscriber_id: int = session.execute(
        added.on_conflict_do_update(index_elements=["address_hash"], set_=values).returning(
            _subscriber.c.id
        )
    ).scalar_one()
    topics.choose(session, subscriber_id, wish["topics"], now=now)
    requested = Act(
        asked.created_at, "requested", source, wish["wording"], wish["ip"], wish["agent"]
    )
    if proof is None:
        record(session, subscriber_id, [requested])
    else:
        confirmed = Act(proof.at, proof.act, source, wish["wording"], proof.ip, proof.user_agent)
        record(session, subscriber_id, [requested, confirmed])
    return subscriber_id
