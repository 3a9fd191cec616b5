"""Test mails: an issue to addresses that somebody names, before it goes to anybody else.

They are marked in the subject, make no delivery, and carry nobody's token: their links to
leave open nothing. They go through the gateway with the same tags and substitutions as a
send. Whoever left gets none of them either, and an hour has only so many.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from newsletter.db.orm import Session
from newsletter.errors import ProviderError, SendError
from newsletter.provider.gateway import Accepted, Gateway, MailRequest, NotSent, Recipient, Refused
from newsletter.rendering.preview import NO_TOKEN
from newsletter.rendering.rendered import Rendered
from subscribers import rate_limit
from subscribers.consent import suppression
from subscribers.email_address import parse

MARK: Final = "[Test] "
#: Addresses at a time, and in an hour by everybody together.
MOST: Final = 10
_AN_HOUR: Final = 60


def allowed(
    session: Session,
    emails: Sequence[str],
    *,
    hash_of: Callable[[str], bytes | None],
    secret: bytes,
    now: datetime,
) -> list[str]:
    """The addresses, each once, when a test may go to them; counts it.

    Commit before sending. Raises AddressError for what is no address, and SendError for too
    many and for those who left or whose mailbox does not exist.
    """
    to = list(dict.fromkeys(parse(email).email for email in emails))
    if not 0 < len(to) <= MOST:
        raise SendError(f"a test goes to 1 to {MOST} addresses", place=f"{len(to)} addresses")
    hashes = {hash_of(email): email for email in to}
    for hashed, reason in suppression.reasons_of(session, [h for h in hashes if h]).items():
        raise SendError(
            f"this address must not be mailed ({reason})",
            place=hashes[hashed],
            hint="Name another one.",
        )
    key = rate_limit.key_of(secret, "test mails", "")
    for _ in to:
        if not rate_limit.hit(session, key, limit=_AN_HOUR, window=timedelta(hours=1), now=now):
            raise SendError(f"an hour has at most {_AN_HOUR} test mails", hint="Try again later.")
    return to


def send(
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
