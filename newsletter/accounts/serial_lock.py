"""One at a time: what has to see everything that was decided before it, on either database."""

from sqlalchemy import text

from newsletter.db.orm import Session

#: Any number, as long as nothing else takes the same.
_LOCK = text("SELECT pg_advisory_xact_lock(6873275)")


def lock_audit_chain(session: Session) -> None:
    """Wait until no other transaction is between here and its end.

    On SQLite that is so for all transactions that write. What is read afterwards on
    PostgreSQL is what the others left, because each statement looks anew. Whatever changes
    a user takes it before it touches a row, so that nobody waits for each other in a circle.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_LOCK)
