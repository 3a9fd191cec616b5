"""Tables of reconciling: when the provider's lists were compared, and who has to leave them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text

from newsletter.db.orm import Field, Hash, Id, Json, Model


class Reconciliation(Model, table=True):
    """One comparison. ``finished_at`` stays empty when it was stopped or failed."""

    __tablename__ = "reconciliation"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    started_at: datetime
    finished_at: datetime | None = None
    #: What came onto the lists since then was compared; empty means all of them.
    since: datetime | None = None
    #: newsletter.tracking.suppression_sync.Report as JSON.
    report: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: Why it did not finish.
    error: str = Field(default="", max_length=1000)


class ListRemoval(Model, table=True):
    """An address that has to leave the provider's suppression lists, or has left them.

    The row stays after that, so that late events of entries from before suppress nobody.
    """

    __tablename__ = "list_removal"
    __table_args__ = (
        Index(
            "ix_list_removal_due",
            "next_at",
            sqlite_where=text("done_at IS NULL"),
            postgresql_where=text("done_at IS NULL"),
        ),
    )

    address_hash: bytes = Field(sa_type=Hash, primary_key=True)
    #: Needed to ask the provider; empty once the address is off the lists.
    email: str = Field(max_length=320)
    #: Bounces until then are over: an operator lifted them, or the subscriber came back. Empty
    #: after a bounce that says nothing of the mailbox: it counts, but must not be on the list.
    since: datetime | None = None
    #: Whether the subscriber came back by their own confirmed wish. That ends their unsubscribe
    #: and their complaint, too.
    own_wish: bool = False
    attempt: int = 0
    next_at: datetime
    done_at: datetime | None = Field(default=None, index=True)
