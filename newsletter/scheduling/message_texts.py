"""The texts of operator messages, for emails and for the console."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import ColumnElement, Row, Select, select

from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.scheduling.models import Schedule
from newsletter.sending.models import Send
from newsletter.webhooks import endpoints

_send, _issue, _schedule = table_of(Send), table_of(Issue), table_of(Schedule)

#: What users choose between, in the order in which the choices are shown.
LABELS: Final[Mapping[MessageKind, str]] = {
    MessageKind.REVIEW_ASKED: "A review is requested",
    MessageKind.SEND_PAUSED: "A send was paused automatically",
    MessageKind.SEND_UNCERTAIN: "Batches of a send are not confirmed",
    MessageKind.RATE_HIGH: "A rate of a send is above the limit of a rule",
    MessageKind.SEND_FINISHED: "A send has its first figures, a day after its end",
    MessageKind.SCHEDULE_FAILED: "A schedule sent nothing",
    MessageKind.LOG_WAITS: "Sending waits for a departure log",
    MessageKind.BACKUP_FAILED: "A backup failed",
    MessageKind.DISK_LOW: "A disk has little space",
    MessageKind.EVENTS_SILENT: "The provider reports no events",
    MessageKind.SUPPRESSIONS_DIFFERED: "Suppressions differed from the provider’s lists",
    MessageKind.WEBHOOK_DISABLED: "A webhook endpoint was disabled",
}

_OF_SENDS = (
    MessageKind.SEND_PAUSED,
    MessageKind.SEND_UNCERTAIN,
    MessageKind.SEND_FINISHED,
    MessageKind.RATE_HIGH,
)


_SEND = "/console/sends/{subject}"
#: Title, first sentences, and the path of the page of each kind.
_TEXTS: Final[Mapping[MessageKind, tuple[str, str, str]]] = {
    MessageKind.SEND_PAUSED: (
        "Paused: {name}",
        (
            "The send of “{name}” was paused automatically. No further email is sent until you "
            "resume or cancel it."
        ),
        _SEND,
    ),
    MessageKind.SEND_UNCERTAIN: (
        "Not confirmed: {name}",
        (
            "The provider did not confirm some batches of “{name}”. Wait for its events, or decide "
            "whether these batches count as sent or are sent again."
        ),
        _SEND,
    ),
    MessageKind.SEND_FINISHED: (
        "First figures: {name}",
        "The send of “{name}” ended a day ago. These are its figures so far.",
        _SEND,
    ),
    MessageKind.RATE_HIGH: (
        "Above the limit: {name}",
        "A rule of the circuit breaker matches the send of “{name}”. Nothing was paused by it.",
        _SEND,
    ),
    MessageKind.REVIEW_ASKED: (
        "Please review: {name}",
        "A review of “{name}” was requested. It can be sent after it is approved.",
        "/console/issues/{subject}",
    ),
    MessageKind.LOG_WAITS: (
        "Sending is stopped: a departure log was not compared",
        (
            "A departure log has not been compared with the database since it was restored or "
            "moved. Without it, recipients could get an issue twice, so no send continues."
        ),
        "/console/sends/departures",
    ),
    MessageKind.SCHEDULE_FAILED: (
        "Nothing was sent: schedule {name}",
        "The schedule {name} was due and sent nothing.",
        "/console/schedules/{subject}",
    ),
    MessageKind.BACKUP_FAILED: (
        "A backup failed",
        (
            "The service could not back up its database, or the program that it runs after a "
            "backup failed."
        ),
        "/console/",
    ),
    MessageKind.DISK_LOW: (
        "Little disk space for {name}",
        "Free some disk space: when it is used up, nothing can be sent or stored.",
        "/console/",
    ),
    MessageKind.EVENTS_SILENT: (
        "The provider reports no events",
        (
            "Emails left, and no event has come since. Bounces, complaints and unsubscribes may be "
            "missing. Check the event webhook in the provider's account."
        ),
        "/console/deliverability",
    ),
    MessageKind.SUPPRESSIONS_DIFFERED: (
        "Suppressions differed from the provider's lists",
        (
            "The comparison with the provider's lists found differences and repaired them. Events "
            "may have been lost, or another program uses the account."
        ),
        "/console/deliverability",
    ),
    MessageKind.WEBHOOK_DISABLED: (
        "Webhook disabled: {name}",
        (
            "The webhook endpoint {name} is sent nothing more, and new events are not kept for it. "
            "Correct the program that answers there, and enable the endpoint again."
        ),
        "/console/settings/webhooks/{subject}",
    ),
}


@dataclass(frozen=True, slots=True)
class MessageText:
    """A message as a user reads it."""

    id: int
    at: datetime
    title: str
    lead: str
    #: The reason, as its author wrote it; may be empty.
    detail: str
    #: The console's page where the user sees more or decides.
    path: str


def texts(session: Session, messages: Sequence[Row[Any]]) -> list[MessageText]:
    """The texts of these messages, in their order; a few queries for any number of them."""
    kinds = [(MessageKind(one.kind), one.subject) for one in messages]
    sends = _names(
        session,
        select(_send.c.id, _issue.c.title).join(_issue, _send.c.issue_id == _issue.c.id),
        _send.c.id,
        {int(subject) for kind, subject in kinds if kind in _OF_SENDS and subject.isdecimal()},
    )
    issues = _names(
        session,
        select(_issue.c.slug, _issue.c.title),
        _issue.c.slug,
        {subject for kind, subject in kinds if kind is MessageKind.REVIEW_ASKED},
    )
    schedules = _names(
        session,
        select(_schedule.c.id, _schedule.c.name),
        _schedule.c.id,
        {
            int(subject)
            for kind, subject in kinds
            if kind is MessageKind.SCHEDULE_FAILED and subject.isdecimal()
        },
    )
    hooks = [
        int(subject)
        for kind, subject in kinds
        if kind is MessageKind.WEBHOOK_DISABLED and subject.isdecimal()
    ]
    endpoint_names = endpoints.names(session, hooks) if hooks else {}
    found = []
    for message, (kind, subject) in zip(messages, kinds, strict=True):
        if kind in _OF_SENDS:
            name = sends.get(subject, f"send {subject}")
        elif kind is MessageKind.REVIEW_ASKED:
            name = issues.get(subject, subject)
        elif kind is MessageKind.WEBHOOK_DISABLED:
            name = endpoint_names.get(subject, subject)
        else:
            name = schedules.get(subject, subject)
        title, lead, path = _TEXTS[kind]
        found.append(
            MessageText(
                message.id,
                message.created_at,
                title.format(name=name),
                lead.format(name=name),
                message.detail,
                path.format(subject=quote(subject, safe="")),
            )
        )
    return found


def _names(
    session: Session, pairs: Select[Any], key: ColumnElement[Any], wanted: Collection[object]
) -> dict[str, str]:
    if not wanted:
        return {}
    return {str(row[0]): row[1] for row in session.execute(pairs.where(key.in_(wanted)))}
