"""Sign-up with double opt-in: a signup joins the audience only when its link is confirmed.

A response never shows whether an address is known: each request runs the same statements, and
only the email, which the owner of the address reads, says more.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select

from newsletter.db import webhook_queue
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.errors import UserError
from subscribers import rate_limit
from subscribers.consent import former_addresses, suppression, topics
from subscribers.consent.records import Act, record
from subscribers.email_address import hash_address
from subscribers.models import (
    Confirmation,
    Subscriber,
    SuppressionReason,
)
from subscribers.signup.form import Signup
from subscribers.signup.mailboxes import mailbox_of

_subscriber = table_of(Subscriber)
_confirmation = table_of(Confirmation)

_DAY = timedelta(days=1)
_KIND = "signup"
#: Those who left by their own choice come back only by a link that they requested afterwards.
_LEFT_BY_CHOICE = {
    SuppressionReason.UNSUBSCRIBED,
    SuppressionReason.COMPLAINED,
    SuppressionReason.ERASED,
}
#: These addresses get one confirmation email a day, however many the settings allow: the email
#: bypasses the provider's suppression lists.
_ONE_A_DAY = {SuppressionReason.BOUNCED, SuppressionReason.COMPLAINED}


class SignupLinkError(UserError):
    """The link of a confirmation email is no longer valid."""


class ConfirmationEmail(StrEnum):
    """Which email answers a signup."""

    #: Asks for confirmation.
    CONFIRM = "confirm"
    #: Says that the address is subscribed already, and where to change the subscription.
    KNOWN = "known"
    #: Says that the address is now subscribed. Only without double opt-in.
    WELCOME = "welcome"


@dataclass(frozen=True, slots=True)
class SignupResult:
    """A recorded signup."""

    confirmation_id: int
    mail: ConfirmationEmail
    #: Whether to send the email. The web page shows the same answer if not.
    send: bool
    #: The subscriber, for each email but ``CONFIRM``.
    subscriber_id: int | None
    expires: datetime


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A confirmed signup."""

    subscriber_id: int
    address_hash: bytes
    email: str
    #: Whether the address was suppressed before.
    was_suppressed: bool


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
    """Record a signup; says which email to send, if any.

    A mailbox, by any of its addresses, gets at most ``per_address`` emails a day. It gets one if
    it bounced or its owner complained, and none if an operator suppressed it. Without
    ``double_opt_in``, a new address is subscribed at once. An address that was suppressed, or
    that its owner gave up for another one, still has to be confirmed.
    """
    address_hash = hash_address(address_key, signup.address)
    suppressed = suppression.reason_of(session, address_hash)
    limit = rate_limit.key_of(address_key, rate_limit.SINGLE_MAILS, mailbox_of(signup.address))
    a_day = min(per_address, 1) if suppressed in _ONE_A_DAY else per_address
    within = rate_limit.hit(session, limit, limit=a_day, window=_DAY, now=now)
    person = session.execute(
        select(_subscriber.c.id, _subscriber.c.confirmed_at).where(
            _subscriber.c.address_hash == address_hash
        )
    ).one_or_none()
    known = person is not None and person.confirmed_at is not None and suppressed is None
    # Otherwise a stranger could make the owner get each issue at both addresses.
    is_former = former_addresses.is_former(session, address_hash)
    join_now = not double_opt_in and suppressed is None and not is_former
    waits = within and not known and not join_now and suppressed != SuppressionReason.MANUAL
    asked = Confirmation(
        kind=_KIND,
        email=signup.address.email,
        address_hash=address_hash,
        asked=_request_data(signup),
        created_at=now,
        # The row is always written, so that each request takes equal time.
        expires_at=now + confirm_within if waits else now,
    )
    session.add(asked)
    session.flush()
    subscriber_id = person.id if person is not None else None
    if not double_opt_in:
        # Each request adds the subscriber, and rolls back where that is not allowed. So all take
        # equal time.
        with session.begin_nested() as point:
            made = _add_subscriber(session, asked, now=now, proof=None)
            if join_now and not known:
                subscriber_id = made
            else:
                point.rollback()
    mail = (
        ConfirmationEmail.KNOWN
        if known
        else ConfirmationEmail.WELCOME
        if join_now
        else ConfirmationEmail.CONFIRM
    )
    return SignupResult(
        asked.id,
        mail,
        within and suppressed != SuppressionReason.MANUAL,
        None if mail is ConfirmationEmail.CONFIRM else subscriber_id,
        asked.expires_at,
    )


def find(session: Session, confirmation_id: int, *, now: datetime) -> Confirmation:
    """A signup to show; SignupLinkError if there is none or it has expired."""
    asked = _usable(session.get(Confirmation, confirmation_id), now)
    if asked.done_at is not None:
        _refuse_suppressed(suppression.reason_of(session, asked.address_hash))
    return asked


def confirm(
    session: Session,
    confirmation_id: int,
    *,
    now: datetime,
    ip: str | None,
    user_agent: str | None,
) -> Confirmed:
    """Subscribe the address of a signup. A second time changes nothing.

    An address that left, bounced or complained before the signup can be emailed again. Raises
    SignupLinkError, also for those who left after the signup or after the first confirmation,
    and for addresses that an operator suppressed.
    """
    address_hash = find(session, confirmation_id, now=now).address_hash
    # Lock the subscriber first, as everywhere: opposite orders would deadlock.
    session.execute(
        select(_subscriber.c.id).where(_subscriber.c.address_hash == address_hash).with_for_update()
    )
    asked = _usable(
        session.get(Confirmation, confirmation_id, with_for_update=True, populate_existing=True),
        now,
    )
    suppressed = suppression.find(session, address_hash, lock=True)
    if asked.done_at is not None and asked.subscriber_id is not None:
        _refuse_suppressed(suppressed.reason if suppressed is not None else None)
        return Confirmed(asked.subscriber_id, address_hash, asked.email, was_suppressed=False)
    if suppressed is not None:
        if suppressed.reason == SuppressionReason.MANUAL:
            raise SignupLinkError(
                "this address cannot be subscribed",
                hint="Write to the editors if this is a mistake.",
            )
        if suppressed.reason in _LEFT_BY_CHOICE and suppressed.at > asked.created_at:
            raise SignupLinkError(
                "you unsubscribed after this link was sent",
                hint="Subscribe again to get a new one.",
            )
    if former_addresses.is_former(session, address_hash, since=asked.created_at):
        # The owner has another address since, and would get each issue at both.
        raise SignupLinkError(
            "you changed to another address after this link was sent",
            hint="Subscribe again to get a new one.",
        )
    proof = Act(now, "confirmed", ip=ip, user_agent=user_agent)
    subscriber_id = _add_subscriber(session, asked, now=now, proof=proof)
    suppression.lift(session, [address_hash])
    former_addresses.remove(session, address_hash)
    asked.done_at, asked.subscriber_id = now, subscriber_id
    session.add(asked)
    session.flush()
    return Confirmed(
        subscriber_id, address_hash, asked.email, was_suppressed=suppressed is not None
    )


def sweep(session: Session, *, now: datetime) -> int:
    """Delete expired requests, confirmed or not; returns how many."""
    result = session.execute(delete(_confirmation).where(_confirmation.c.expires_at <= now))
    return result.rowcount  # type: ignore[attr-defined,no-any-return]


def _usable(asked: Confirmation | None, now: datetime) -> Confirmation:
    if asked is None or asked.kind != _KIND:
        raise SignupLinkError("there is nothing to confirm here", hint="Subscribe again.")
    if asked.expires_at <= now:
        raise SignupLinkError("this link has expired", hint="Subscribe again to get a new one.")
    return asked


def _refuse_suppressed(reason: str | None) -> None:
    """Raise SignupLinkError if the address was suppressed after its link was used."""
    match reason:
        case None:
            return
        case SuppressionReason.MANUAL:
            raise SignupLinkError(
                "this address gets no more emails",
                hint="Write to the editors if this is a mistake.",
            )
        case SuppressionReason.BOUNCED:
            raise SignupLinkError(
                "emails to your address bounced, so it gets no more",
                hint="Subscribe again when your mailbox works.",
            )
    raise SignupLinkError(
        "you unsubscribed after this link was used", hint="Subscribe again to come back."
    )


def _request_data(signup: Signup) -> dict[str, Any]:
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


def _add_subscriber(
    session: Session, asked: Confirmation, *, now: datetime, proof: Act | None
) -> int:
    """Add the subscriber, or merge the signup into the existing row. Returns the id."""
    wanted = asked.asked
    source = f"form:{wanted['form']}"
    found = session.execute(
        select(_subscriber)
        .where(_subscriber.c.address_hash == asked.address_hash)
        .with_for_update()
    ).one_or_none()
    # A subscriber is confirmed since the first proof. A suppressed one has to prove it again.
    back = suppression.reason_of(session, asked.address_hash) is not None
    before: dict[str, Any] = dict(found._mapping) if found is not None else {}
    since = None if back else before.get("confirmed_at")
    values = {
        "email": asked.email,
        "name": wanted["name"] or before.get("name", ""),
        "attributes": {**before.get("attributes", {}), **wanted["attributes"]},
        "language": wanted["language"] or before.get("language"),
        "timezone": wanted["timezone"] or before.get("timezone"),
        "confirmed_at": since or now,
        "paused_until": None if back else before.get("paused_until"),
    }
    # A suppressed address is not new, though perhaps only its hash was kept, as after an erasure.
    # A row that is older than its proof makes the suppression sync take it off SendGrid's lists.
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
    topics.choose(session, subscriber_id, wanted["topics"], now=now)
    # Without proof one event for everybody, known or new, so that all take equal time.
    is_new, is_proven = found is None, proof is not None
    for event, happened in (
        (WebhookEvent.SUBSCRIBER_CREATED, is_new),
        (WebhookEvent.SUBSCRIBER_CONFIRMED, is_proven or not is_new),
    ):
        if happened:
            one = select(_subscriber.c.id, _subscriber.c.email)
            webhook_queue.report_subscribers(
                session, event, one.where(_subscriber.c.id == subscriber_id), now=now, source=source
            )
    requested = Act(
        asked.created_at,
        "requested",
        source,
        wanted["wording"],
        wanted["ip"],
        wanted["agent"],
    )
    if proof is None:
        record(session, subscriber_id, [requested])
    else:
        confirmed = Act(proof.at, proof.act, source, wanted["wording"], proof.ip, proof.user_agent)
        record(session, subscriber_id, [requested, confirmed])
    return subscriber_id
