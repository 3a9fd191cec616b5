"""The message with the first figures of a send, a day after its end."""

from datetime import datetime, timedelta

from sqlalchemy import select

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind, Occasion
from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Send
from newsletter.sending.states import SendState
from newsletter.tracking.stats import rates
from newsletter.tracking.stats.rates import Performance

_send = table_of(Send)
_AFTER = timedelta(hours=24)
#: A report that could not be written in this time is of no use any more.
_LATEST = timedelta(days=4)
#: Sends to fewer recipients are tests, of which nobody needs a report.
MIN_RECIPIENTS = 20


def occasions(session: Session, *, now: datetime) -> list[Occasion]:
    """The reports that are due and not written yet."""
    due = session.scalars(
        select(_send.c.id).where(
            _send.c.state == SendState.SENT,
            _send.c.finished_at <= now - _AFTER,
            _send.c.finished_at > now - _LATEST,
            _send.c.accepted_count >= MIN_RECIPIENTS,
        )
    )
    new = operator_messages.not_posted(
        session, [Occasion(MessageKind.SEND_FINISHED, send_id) for send_id in due]
    )
    return [
        Occasion(
            one.kind, one.subject, detail=_figures(rates.of_send(session, int(str(one.subject))))
        )
        for one in new
    ]


def _figures(of: Performance) -> str:
    """The figures in one sentence; those that are not measured are left out."""
    found, shares = of.figures, of.rates
    parts = [f"{of.sent:,} emails accepted"]
    for name, count, share in (
        ("delivered", found.get("delivered", 0), shares.delivered),
        ("bounced", found.get("bounce", 0), shares.bounced),
        ("opened", found.get("opened", 0), shares.opened),
        ("clicked", found.get("clicked", 0), shares.clicked),
        ("unsubscribed", found.get("left", 0), shares.unsubscribed),
        ("marked as spam", found.get("complained", 0), shares.complained),
    ):
        if of.measures(name) and share is not None:
            parts.append(f"{count:,} {name} ({100 * share:.2f} %)")
    return f"{', '.join(parts)}."
