"""A lock that serializes transactions that change users or write the audit log."""

from newsletter.db.dialect import lock
from newsletter.db.orm import Session


def lock_audit_chain(session: Session) -> None:
    """Hold the lock until this transaction ends; wait while another transaction holds it.

    SQLite serializes writing transactions itself. On PostgreSQL, statements after this one see what
    earlier holders have committed, because each statement takes a new snapshot. A transaction that
    changes a user takes the lock before it locks any row, which prevents deadlocks.
    """
    lock(session, "audit chain")
