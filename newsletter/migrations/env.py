"""Alembic's entrance: runs migrations on the connection that newsletter.db.engine hands over."""

import re
from typing import Literal

from alembic import context

from newsletter.db.orm import AutoString, UTCDateTime
from newsletter.migrations.tables import metadata
from newsletter.sending import state_triggers


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """The tables of months are parts of ``event``."""
    return kind != "table" or not re.fullmatch(r"event_(\d{4}_\d\d|other)", name or "")


def plain_types(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write SQLModel's column types as the SQLAlchemy types that they are in the database."""
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String({item.length or ''})"
    return (
        "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UTCDateTime) else False
    )


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_item=plain_types,
    render_as_batch=connection.dialect.name == "sqlite",
    include_name=is_ours,
    # Alembic believes that SQLite has none, and would commit after each version.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
    # Not frozen in a version: the tables of states are always those of this code.
    state_triggers.install(connection)
