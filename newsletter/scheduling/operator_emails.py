"""Emails to owners and approvers about problems that they have to resolve."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Row, select

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.rendering.rendered import Publication
from newsletter.rendering.transactional import render_transactional
from newsletter.scheduling.models import Schedule
from newsletter.sending.delivery import outbox
from newsletter.sending.delivery.outbox import OutgoingEmail
from newsletter.sending.models import Send

_send, _issue, _schedule = table_of(Send), table_of(Issue), table_of(Schedule)


@dataclass(frozen=True, slots=True)
class _EmailText:
    title: str
    lead: str
    path: str


def send_waiting(
    session: Session, *, publication: Publication, templates: Path, now: datetime
) -> int:
    """Put the emails of waiting messages into the outbox; returns how many messages there were.

    Each email links to the console's page where the operator decides.
    """
    waiting = operator_messages.not_emailed(session)
    to = operator_messages.readers(session) if waiting else []
    for message in waiting:
        content = _email_text(session, message)
        email = render_transactional(
            publication,
            templates=templates,
            title=content.title,
            paragraphs=[content.lead, *([message.detail] if message.detail else [])],
            button=("Open the console", f"{publication.base_url}{content.path}"),
            footer=f"You get this email as an owner or approver of {publication.name}.",
        )
        for address in to:
            mail = OutgoingEmail(email.subject, email.html, email.text)
            outbox.enqueue(session, kind="operator", email=address, mail=mail, now=now)
        operator_messages.emailed(session, message.id, now=now)
    return len(waiting)


def _email_text(session: Session, message: Row[Any]) -> _EmailText:
    match MessageKind(message.kind):
        case MessageKind.SEND_PAUSED:
            title = _title_of_send(session, int(message.subject))
            return _EmailText(
                f"Paused: {title}",
                f"The send of “{title}” was paused automatically. No further email is sent until "
                "you resume or cancel it.",
                f"/console/sends/{message.subject}",
            )
        case MessageKind.SEND_UNCERTAIN:
            title = _title_of_send(session, int(message.subject))
            return _EmailText(
                f"Not confirmed: {title}",
                f"The provider did not confirm some batches of “{title}”. Wait for its events, "
                "or decide whether these batches count as sent or are sent again.",
                f"/console/sends/{message.subject}",
            )
        case MessageKind.REVIEW_ASKED:
            title = _title_of_issue(session, message.subject)
            return _EmailText(
                f"Please review: {title}",
                f"A review of “{title}” was requested. It can be sent after it is approved.",
                f"/console/issues/{quote(message.subject, safe='')}",
            )
        case MessageKind.LOG_WAITS:
            return _EmailText(
                "Sending is stopped: a departure log was not compared",
                "A departure log has not been compared with the database since it was restored or "
                "moved. Without it, recipients could get an issue twice, so no send continues.",
                "/console/sends/departures",
            )
        case MessageKind.BACKUP_FAILED:
            return _EmailText(
                "A backup failed",
                "The service could not back up its database, or the program that it runs after a "
                "backup failed.",
                "/console",
            )
        case MessageKind.SCHEDULE_FAILED:
            name = session.scalar(
                select(_schedule.c.name).where(_schedule.c.id == int(message.subject))
            )
            return _EmailText(
                f"Nothing was sent: schedule {name or message.subject}",
                f"The schedule {name or message.subject} was due and sent nothing.",
                f"/console/schedules/{message.subject}",
            )


def _title_of_send(session: Session, send_id: int) -> str:
    of_send = select(_issue.c.title).join(_send, _send.c.issue_id == _issue.c.id)
    return session.scalar(of_send.where(_send.c.id == send_id)) or f"send {send_id}"


def _title_of_issue(session: Session, slug: str) -> str:
    return session.scalar(select(_issue.c.title).where(_issue.c.slug == slug)) or slug
