"""A lock that serializes transactions that change users or write the audit log."""

from sqlalchemy import text

from newsletter.db.orm import Session

#: An arbitrary number that no other advisory lock uses.
_LOCK = text("SELECT pg_advisory_xact_lock(6873275)")


def lock_audit_chain(session: Session) -> None:
    """Hold the lock until this transaction ends; wait while another transaction holds it.

    SQLite serializes writing transactions itself. On PostgreSQL, statements after this one see what
    earlier holders have committed, because each statement takes a new snapshot. A transaction that
    changes a user takes the lock before it locks any row, which prevents deadlocks.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_LOCK)
