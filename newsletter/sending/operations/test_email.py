"""Test emails: an issue sent to given addresses before it goes to subscribers.

Their subject begins with SUBJECT_PREFIX. They create no delivery, and their unsubscribe links
have no valid token. They use the gateway with the same tags and substitutions as a send.
Suppressed addresses are refused, and the number per hour is limited.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.engine import transaction
from newsletter.db.orm import Session
from newsletter.errors import ProviderError, SendError
from newsletter.provider.gateway import Accepted, Gateway, MailRequest, NotSent, Recipient, Refused
from newsletter.rendering.preview import NO_TOKEN
from newsletter.rendering.rendered import Rendered
from subscribers import rate_limit
from subscribers.consent import suppression
from subscribers.email_address import parse

SUBJECT_PREFIX: Final = "[Test] "
#: The most addresses of one test.
MAX_ADDRESSES: Final = 10
#: The most test emails per hour, of all users together.
_MAX_PER_HOUR: Final = 60


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
    """Send a test email to these addresses, with this subscriber's values; returns the addresses.

    The count and the audit entry are committed before the provider is called. Raises
    AddressError if one is not an address, SendError for too many addresses and for a suppressed
    one, and ProviderError if the provider did not accept the email.
    """
    with transaction(database) as session:
        to = _check_addresses(session, emails, hash_of=hash_of, secret=secret, now=now)
        audit.record(session, by, "test email sent", now=now, subject=slug, to=", ".join(to))
    _send(gateway, rendered, person, to)
    return to


def _check_addresses(
    session: Session,
    emails: Sequence[str],
    *,
    hash_of: Callable[[str], bytes | None],
    secret: bytes,
    now: datetime,
) -> list[str]:
    """Return the distinct addresses, and count them against the hourly limit.

    Raises AddressError for an invalid address, and SendError for too many addresses, for a
    suppressed one, and when the hourly limit is reached.
    """
    to = list(dict.fromkeys(parse(email).email for email in emails))
    if not 0 < len(to) <= MAX_ADDRESSES:
        raise SendError(
            f"a test email needs 1 to {MAX_ADDRESSES} addresses", place=f"{len(to)} addresses"
        )
    hashes = {hash_of(email): email for email in to}
    for hashed, reason in suppression.reasons_of(session, [h for h in hashes if h]).items():
        raise SendError(
            f"this address is suppressed ({reason})",
            place=hashes[hashed],
            hint="Choose another address.",
        )
    key = rate_limit.key_of(secret, "test emails", "")
    for _ in to:
        if not rate_limit.hit(
            session, key, limit=_MAX_PER_HOUR, window=timedelta(hours=1), now=now
        ):
            raise SendError(
                f"the limit of {_MAX_PER_HOUR} test emails per hour is reached",
                hint="Try again later.",
            )
    return to


def _send(
    gateway: Gateway, rendered: Rendered, person: Mapping[str, Any], emails: Sequence[str]
) -> None:
    """Send the test email with this subscriber's values.

    Raises ProviderError unless the provider accepted it.
    """
    values = rendered.placeholders.substitutions(person, NO_TOKEN)
    outcome = gateway.send(
        MailRequest(
            sender_email=rendered.from_email,
            sender_name=rendered.from_name,
            reply_to=rendered.reply_to,
            subject=SUBJECT_PREFIX + rendered.subject,
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
            message = f"SendGrid refused it ({status}): {reason}"
        case NotSent(reason):
            message = reason
        case _:
            message = f"the provider did not confirm it: {outcome.reason}"
    raise ProviderError(
        message, place="test email", hint="Check the API key and the sender in SendGrid."
    )
