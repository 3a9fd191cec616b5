"""The table that says when the provider's lists were compared with ours, and what was found."""

from datetime import datetime
from typing import Any

from subscribers.schema import Field, Id, Json, Model


class Reconciliation(Model, table=True):
    """One comparison. ``finished_at`` stays empty when it was stopped or failed."""

    __tablename__ = "reconciliation"

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    started_at: datetime
    finished_at: datetime | None = None
    #: What came onto the lists since then was compared; empty means all of them.
    since: datetime | None = None
    #: newsletter.tracking.reconcile.Report as JSON.
    report: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: Why it did not finish.
    error: str = Field(default="", max_length=1000)
