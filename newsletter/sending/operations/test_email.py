"""Test mails: an issue to addresses that somebody names, before it goes to anybody else.

They are marked in the subject, make no delivery, and carry nobody's token: their links to
leave open nothing. They go through the gateway with the same tags and substitutions as a
send. Whoever left gets none of them either, and an hour has only so many.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine, select

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.engine import transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import ProviderError, SendError
from newsletter.provider.gateway import Accepted, Gateway, MailRequest, NotSent, Recipient, Refused
from newsletter.rendering.preview import NO_TOKEN
from newsletter.rendering.rendered import Rendered
from subscribers import rate_limit
from subscribers.email_address import parse
from subscribers.models import Suppression

_suppression = table_of(Suppression)

MARK: Final = "[Test] "
#: Addresses at a time, and in an hour by everybody together.
MOST: Final = 10
_AN_HOUR: Final = 60


def send(
    database: Engine,
    gateway: Gateway,
    rendered: Rendered,
    person: Mapping[str, Any],
    emails: Sequence[str],
    *,
    by: Actor,
    now: datetime,
    hash_of: Callable[[str], bytes | None],
    secret: bytes,
    slug: str,
) -> list[str]:
    """Send a test email to these addresses, with this person's values; returns the addresses.

    The count and the audit entry are committed before the provider is called. Raises
    AddressError if one is not an address, SendError for too many addresses and for a suppressed
    one, and ProviderError if the provider did not accept the email.
    """
    with transaction(database) as session:
        to = _allowed(session, emails, hash_of=hash_of, secret=secret, now=now)
        audit.record(session, by, "test email sent", now=now, subject=slug, to=", ".join(to))
    _hand_over(gateway, rendered, person, to)
    return to


def _allowed(
    session: Session,
    emails: Sequence[str],
    *,
    hash_of: Callable[[str], bytes | None],
    secret: bytes,
    now: datetime,
) -> list[str]:
    """The addresses, each once, when a test may go to them; counts it.

    Raises AddressError for what is no address, and SendError for too
    many and for those who left or whose mailbox does not exist.
    """
    to = list(dict.fromkeys(parse(email).email for email in emails))
    if not 0 < len(to) <= MOST:
        raise SendError(f"a test goes to 1 to {MOST} addresses", place=f"{len(to)} addresses")
    hashes = {hash_of(email): email for email in to}
    barred = session.execute(
        select(_suppression.c.address_hash, _suppression.c.reason).where(
            _suppression.c.address_hash.in_([hashed for hashed in hashes if hashed])
        )
    ).first()
    if barred is not None:
        raise SendError(
            f"this address must not be mailed ({barred.reason})",
            place=hashes[barred.address_hash],
            hint="Name another one.",
        )
    key = rate_limit.key_of(secret, "test mails", "")
    for _ in to:
        if not rate_limit.hit(session, key, limit=_AN_HOUR, window=timedelta(hours=1), now=now):
            raise SendError(f"an hour has at most {_AN_HOUR} test mails", hint="Try again later.")
    return to


def _hand_over(
    gateway: Gateway, rendered: Rendered, person: Mapping[str, Any], emails: Sequence[str]
) -> None:
    """Hand the test over, with this person's values; ProviderError when it was not taken."""
    values = rendered.placeholders.substitutions(person, NO_TOKEN)
    outcome = gateway.send(
        MailRequest(
            sender_email=rendered.from_email,
            sender_name=rendered.from_name,
            reply_to=rendered.reply_to,
            subject=MARK + rendered.subject,
            text=rendered.text,
            html=rendered.html,
            recipients=[Recipient(email, values, {}, {}) for email in emails],
            categories=("test",),
        )
    )
    match outcome:
        case Accepted():
            return
        case Refused(status, reason):
            said = f"SendGrid refused it ({status}): {reason}"
        case NotSent(reason):
            said = reason
        case _:
            said = f"nobody knows whether it was taken: {outcome.reason}"
    raise ProviderError(said, place="test mail", hint="See newsletter doctor.")
