"""Tables of what happened: each event once, and the figures kept as they arrive."""

from datetime import datetime

from sqlalchemy import Index

from subscribers.schema import Field, Hash, Id, Model


class EventRow(Model, table=True):
    """One happening, as the provider (or our own one-click page) reported it."""

    __tablename__ = "event"
    __table_args__ = (Index(None, "send_id", "kind"),)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: Hash of what identifies the happening; a repeat of the same one is refused by it.
    key: bytes = Field(sa_type=Hash, unique=True)
    kind: str = Field(max_length=40)
    #: When it happened, by the reporter's clock.
    at: datetime
    received_at: datetime
    issue_id: int | None = Field(default=None, sa_type=Id)
    send_id: int | None = Field(default=None, sa_type=Id)
    batch: int | None = None
    subscriber_id: int | None = Field(default=None, sa_type=Id)
    #: A proxy or a scanner did it, not a person.
    by_machine: bool = False
    #: The event as received, JSON.
    raw: str


class SendCount(Model, table=True):
    """How often something happened to the mails of a send, kept as events arrive."""

    __tablename__ = "send_count"

    #: No foreign key: an event may speak of a send that a restored backup has forgotten.
    send_id: int = Field(primary_key=True, sa_type=Id)
    #: An event kind, or an effect of one such as ``unsubscribed``.
    what: str = Field(primary_key=True, max_length=40)
    count: int = 0
