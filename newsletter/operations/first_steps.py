"""Which steps to the first issue are done, by what is in the database."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select

from newsletter.db.orm import Session, table_of
from newsletter.provider.events import EventKind
from newsletter.sending.models import OutboxEmail, Send
from newsletter.sending.states import BatchState, SendState
from newsletter.tracking.models import SendCounter
from subscribers.models import Subscriber, Topic

_outbox, _send, _counter = table_of(OutboxEmail), table_of(Send), table_of(SendCounter)
_subscriber, _topic = table_of(Subscriber), table_of(Topic)


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """Each step, and whether it is done."""

    #: The provider accepted an email, so it knows the key and has verified the sender.
    sender: bool
    #: An event came, so the webhook posts to this service and its key is right.
    webhook: bool
    topic: bool
    subscriber: bool
    issue: bool

    @property
    def complete(self) -> bool:
        """Whether all is done that every publication needs; topics are optional."""
        return self.sender and self.webhook and self.subscriber and self.issue


def first_steps(session: Session) -> FirstSteps:
    """The steps. Each query ends at the first row that it finds."""

    def any_of(*sources: tuple[ColumnElement[object], ColumnElement[bool] | None]) -> bool:
        for column, condition in sources:
            query = select(column).limit(1)
            if condition is not None:
                query = query.where(condition)
            if session.execute(query).first() is not None:
                return True
        return False

    sent = (_send.c.id, _send.c.state == SendState.SENT)
    arrived = or_(*(_counter.c.what == kind for kind in (EventKind.PROCESSED, EventKind.DELIVERED)))
    return FirstSteps(
        sender=any_of(sent, (_outbox.c.id, _outbox.c.state == BatchState.ACCEPTED)),
        webhook=any_of((_counter.c.send_id, arrived), (_outbox.c.id, _outbox.c.outcome != "")),
        topic=any_of((_topic.c.id, None)),
        subscriber=any_of((_subscriber.c.id, None)),
        issue=any_of(sent),
    )
