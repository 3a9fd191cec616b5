"""Emails with operator messages: one for each message at once, or one for a day each morning."""

from collections.abc import Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

from newsletter.accounts import notifications, operator_messages
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.orm import Session
from newsletter.rendering.rendered import Publication
from newsletter.rendering.transactional import render_transactional
from newsletter.scheduling.message_texts import MessageText, texts
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.outbox import OutgoingEmail

#: When the morning email leaves, in the publication's time zone.
_MORNING = time(8)
#: Messages in one morning email; the rest is only counted.
_AT_MOST = 30


def send_waiting(
    session: Session, *, publication: Publication, templates: Path, now: datetime
) -> int:
    """Put the emails of waiting messages into the outbox; returns how many messages there were.

    Each email links to the console's page where the operator decides. For users with a morning
    email, the message is kept until then.
    """
    waiting = operator_messages.not_emailed(session)
    readers = notifications.readers(session) if waiting else []
    sent = 0
    for message, content in zip(waiting, texts(session, waiting), strict=True):
        if not operator_messages.claim_email(session, message.id, now=now):
            continue
        sent += 1
        email = render_transactional(
            publication,
            templates=templates,
            title=content.title,
            paragraphs=[content.lead, *([content.detail] if content.detail else [])],
            button=("Open the console", f"{publication.base_url}{content.path}"),
            footer=_footer(publication),
        )
        mail = OutgoingEmail(email.subject, email.html, email.text)
        for reader in readers:
            if MessageKind(message.kind) not in reader.notifications.kinds:
                continue
            if reader.notifications.digest:
                notifications.queue(session, reader, message.id, now=now)
            else:
                outbox.enqueue(session, kind="operator", email=reader.email, mail=mail, now=now)
    return sent


def digest_is_due(session: Session, *, zone: ZoneInfo, now: datetime) -> bool:
    """Whether a user's morning email has to be written."""
    morning = _morning(zone, now)
    return now >= morning and bool(
        notifications.digests_due(session, day=_day(zone, now), queued_before=morning)
    )


def send_digests(
    session: Session, *, publication: Publication, templates: Path, zone: ZoneInfo, now: datetime
) -> int:
    """Put the morning emails into the outbox; returns how many.

    A user gets at most one a day, whichever process writes it, and none without a message.
    """
    morning, sent = _morning(zone, now), 0
    if now < morning:
        return 0
    day = _day(zone, now)
    for user in notifications.digests_due(session, day=day, queued_before=morning):
        ids = notifications.claim_digest(session, user.id, day=day)
        contents = texts(session, operator_messages.by_ids(session, ids))
        if not contents:
            continue
        email = render_transactional(
            publication,
            templates=templates,
            title=_title(contents),
            paragraphs=_paragraphs(contents),
            button=("Open the messages", f"{publication.base_url}/console/messages"),
            footer=_footer(publication),
        )
        mail = OutgoingEmail(email.subject, email.html, email.text)
        outbox.enqueue(session, kind="operator", email=user.email, mail=mail, now=now)
        sent += 1
    return sent


def _title(contents: Sequence[MessageText]) -> str:
    count = len(contents)
    return f"{count} new message{'' if count == 1 else 's'}: {contents[0].title}"


def _paragraphs(contents: Sequence[MessageText]) -> list[str]:
    shown = [
        " ".join(part for part in (f"{one.title}.", one.detail or one.lead) if part)
        for one in contents[:_AT_MOST]
    ]
    rest = len(contents) - _AT_MOST
    return [*shown, f"And {rest} more."] if rest > 0 else shown


def _footer(publication: Publication) -> str:
    return (
        f"You get this email as a user of the console of {publication.name}. "
        "My account has the choice of notifications."
    )


def _day(zone: ZoneInfo, now: datetime) -> str:
    return now.astimezone(zone).date().isoformat()


def _morning(zone: ZoneInfo, now: datetime) -> datetime:
    """The time of today's morning email."""
    today = now.astimezone(zone).date()
    return datetime.combine(today, _MORNING, tzinfo=zone).astimezone(UTC)
