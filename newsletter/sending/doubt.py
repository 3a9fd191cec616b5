"""Doubtful batches: evidence first (newsletter.tracking), then the operator's policy."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from newsletter.sending import oversight
from subscribers.schema import Session


@dataclass(frozen=True, slots=True)
class Swept:
    """What a look at abandoned and doubtful batches changed."""

    freed: int
    doubtful: int
    resent: int


def sweep(session: Session, *, now: datetime, grace: timedelta, policy: str) -> Swept:
    """Take back what dead workers held; after ``grace``, resend doubtful batches if wanted."""
    freed, doubtful = oversight.recall_abandoned(session, now=now)
    resent = 0
    if policy == "resend":
        resent = oversight.resend_doubted(session, departed_before=now - grace, now=now)
    return Swept(freed, doubtful, resent)
