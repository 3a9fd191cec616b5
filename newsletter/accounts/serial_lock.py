"""One at a time: what has to see everything that was decided before it, on either database."""

from newsletter.db.dialect import lock
from newsletter.db.orm import Session


def lock_audit_chain(session: Session) -> None:
    """Wait until no other transaction is between here and its end.

    On SQLite that is so for all transactions that write. What is read afterwards on
    PostgreSQL is what the others left, because each statement looks anew. Whatever changes
    a user takes it before it touches a row, so that nobody waits for each other in a circle.
    """
    lock(session, "audit chain")
