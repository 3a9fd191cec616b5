"""Personalizes a batch: builds one request from a variant and the recipients. Pure and fast.

What all recipients share is at the root of the request. Each recipient adds the values of the
tags in use, one header that cannot be substituted, and the subscriber's id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import formataddr
from urllib.parse import quote, urlsplit

from sqlalchemy import select

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue, Revision
from newsletter.links import Links, Purpose
from newsletter.provider.events import BATCH, ISSUE, MADE, SEND, SUBSCRIBER, made_mark
from newsletter.provider.gateway import MailRequest, Recipient
from newsletter.rendering.placeholders import Placeholders
from newsletter.sending.ledger.claimed_batch import ClaimedBatch, EligibleRecipient
from newsletter.sending.ledger.forgotten_sends import ForgottenSendInfo
from newsletter.sending.models import Send, Variant

_send, _issue, _revision = table_of(Send), table_of(Issue), table_of(Revision)
_MAX_CACHED = 8
#: Characters of the publication's name in a header: an encoded word has to fit on a line.
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class PreparedVariant:
    """A variant, ready for many batches, and what departure logs record of its send."""

    variant: Variant
    placeholders: Placeholders
    send_info: ForgottenSendInfo


class VariantCache:
    """The variants that were used last. Few are enough, because few sends run at once."""

    def __init__(self) -> None:
        self._cached: dict[int, PreparedVariant] = {}

    def get(self, session: Session, variant_id: int) -> PreparedVariant:
        """The variant with this id, read from the database unless it is cached."""
        prepared = self._cached.get(variant_id)
        if prepared is None:
            variant = session.get_one(Variant, variant_id)
            session.expunge(variant)
            placeholders = Placeholders.from_json(variant.placeholders)
            prepared = PreparedVariant(variant, placeholders, send_info(session, variant.send_id))
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
            self._cached[variant_id] = prepared
        return prepared


def list_id(base_url: str, topics: Sequence[str], *, name: str) -> str:
    """The List-Id header, by which mail programs recognize this newsletter (RFC 2919).

    Issues on exactly one topic share one value; all other issues share another.
    """
    host = urlsplit(base_url).hostname or ""
    # An IPv6 address cannot be part of the identifier; "localhost" stands for no domain.
    domain = "localhost" if ":" in host or not host else host.encode("idna").decode()
    label = f"{topics[0]}.newsletter" if len(topics) == 1 else "newsletter"
    short_name = name[:_LONGEST_NAME].strip()
    return formataddr((short_name, f"{label}.{domain}")) if short_name else f"<{label}.{domain}>"


def send_info(session: Session, send_id: int) -> ForgottenSendInfo:
    """What identifies a send without the ids of this database, for departure logs."""
    row = session.execute(
        select(_issue.c.slug, _revision.c.content, _send.c.occasion)
        .select_from(
            _send.join(_issue, _issue.c.id == _send.c.issue_id).join(
                _revision, _revision.c.id == _send.c.revision_id
            )
        )
        .where(_send.c.id == send_id)
    ).one()
    due = row.occasion.get("due")
    return ForgottenSendInfo(
        row.slug,
        row.content,
        row.occasion.get("schedule", ""),
        datetime.fromisoformat(due) if due else None,
    )


def personalize(
    batch: ClaimedBatch,
    prepared: PreparedVariant,
    eligible: Sequence[EligibleRecipient],
    *,
    links: Links,
    base_url: str,
    mailbox: str = "",
    publication: str = "",
) -> MailRequest:
    """The request for these recipients, with the two headers of RFC 8058 to unsubscribe.

    With a ``mailbox``, recipients can also unsubscribe by an email to it. Its subject has the
    token, because the local part of an address may be changed to lower case on the way.
    """
    variant, values = prepared.variant, prepared.placeholders
    token_of = links.series(Purpose.RECIPIENT, batch.issue_id)
    mailto = f", <mailto:{quote(mailbox, safe='@')}?subject=unsubscribe%20" if mailbox else ""
    recipients = []
    for person in eligible:
        token = token_of(person["id"])
        recipients.append(
            Recipient(
                person["email"],
                values.substitutions(person, token),
                {
                    "List-Unsubscribe": f"<{base_url}/unsubscribe/{token}>{mailto}{token}>"
                    if mailto
                    else f"<{base_url}/unsubscribe/{token}>"
                },
                {SUBSCRIBER: str(person["id"])},
            )
        )
    return MailRequest(
        sender_email=variant.sender_email,
        sender_name=variant.sender_name,
        reply_to=variant.reply_to,
        subject=variant.subject,
        text=variant.text,
        html=variant.html,
        recipients=recipients,
        headers={
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "List-Id": list_id(base_url, batch.topics, name=publication),
        },
        custom_args={
            ISSUE: str(batch.issue_id),
            SEND: str(batch.send_id),
            BATCH: str(batch.number),
            MADE: str(made_mark(batch.made_at)),
        },
        track_clicks=batch.track_clicks,
        track_opens=batch.track_opens,
    )
