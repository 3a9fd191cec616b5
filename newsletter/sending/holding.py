"""Telling the provider what becomes of the mail that it holds, and noting that it has heard.

For commands and console alike, after the send itself was stopped, resumed or ended. The note
follows the answer: a ProviderError leaves none, and the same step can be taken once more.
"""

from datetime import UTC, datetime

from sqlalchemy import Engine

from newsletter.db.engine import reading, transaction
from newsletter.provider.gateway import Holds
from newsletter.sending import held
from newsletter.sending.ledger import send_store


def keep_back(database: Engine, provider: Holds, send_id: int, hold_id: str) -> None:
    """Let it keep what it holds, whatever its time is."""
    provider.pause_held(hold_id)
    with transaction(database) as session:
        held.keep(session, send_id, now=datetime.now(UTC))


def let_go(database: Engine, provider: Holds, send_id: int, hold_id: str) -> None:
    """Let it send what it keeps, at its time or now."""
    provider.release_held(hold_id)
    with transaction(database) as session:
        held.let_go(session, send_id)
        send_store.finish(session, now=datetime.now(UTC))


def call_back(database: Engine, provider: Holds, send_id: int, hold_id: str) -> int:
    """Let it throw away what it holds; returns how many people that leaves without the issue."""
    provider.cancel_held(hold_id)
    with transaction(database) as session:
        return send_store.call_back(session, send_id, now=datetime.now(UTC), surely=held.SURELY)


def new_hold(database: Engine, provider: Holds, send_id: int) -> str | None:
    """A new name for what a retry of the send hands over ahead; None where nothing is."""
    with reading(database) as session:
        ahead = held.is_wanted(session, send_id)
    return provider.new_hold() if ahead else None
