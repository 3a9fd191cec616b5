"""Database triggers that refuse illegal state transitions of sends, batches and deliveries.

They are generated from the tables in states.py whenever the schema is upgraded. They also
refuse illegal changes that an operator types by hand or that another program makes.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from newsletter.db.dialect import is_postgresql
from newsletter.sending.states import BATCH_NEXT, DELIVERY_NEXT, SEND_NEXT

GUARDED: Mapping[str, Mapping[Any, frozenset[Any]]] = {
    "send": SEND_NEXT,
    "batch": BATCH_NEXT,
    "delivery": DELIVERY_NEXT,
}


def install(connection: Connection) -> None:
    """Create the triggers of the current transition tables; replaces those of other releases.

    A trigger that is this release's already stays untouched: to replace it, PostgreSQL would
    lock the table against every process that sends (ACCESS EXCLUSIVE, its manual's 13.3.1).
    """
    make, mark_of = (_postgresql, _comment) if is_postgresql(connection) else (_sqlite, _definition)
    for table, next_states in GUARDED.items():
        statements, mark = make(table, next_states)
        if mark_of(connection, table) != mark:
            for statement in statements:
                connection.exec_driver_sql(statement)


def _definition(connection: Connection, table: str) -> str | None:
    """SQLite keeps the statement that created a trigger."""
    asked = text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
    found: str | None = connection.scalar(asked, {"name": f"{table}_state"})
    return found


def _comment(connection: Connection, table: str) -> str | None:
    """PostgreSQL rewrites what it was given; the comment tells which statement that was."""
    asked = text(
        "SELECT obj_description(oid, 'pg_trigger') FROM pg_trigger "
        "WHERE tgname = :name AND tgrelid = to_regclass(:table)"
    )
    found: str | None = connection.scalar(asked, {"name": f"{table}_state", "table": table})
    return found


def _illegal(next_states: Mapping[Any, frozenset[Any]]) -> str:
    """The SQL condition of an illegal change. SQLite needs three times as long for IN lists."""
    cases = " ".join(
        f"WHEN '{state}' THEN "
        + (" AND ".join(f"NEW.state <> '{target}'" for target in sorted(after)) or "TRUE")
        for state, after in next_states.items()
    )
    return f"NEW.state <> OLD.state AND CASE OLD.state {cases} ELSE TRUE END"


def _sqlite(table: str, next_states: Mapping[Any, frozenset[Any]]) -> tuple[list[str], str]:
    """The statements that create a trigger, and by what it is known afterwards."""
    create = (
        f"CREATE TRIGGER {table}_state AFTER UPDATE OF state ON {table} "
        f"WHEN {_illegal(next_states)} "
        f"BEGIN SELECT RAISE(ABORT, 'illegal transition of a {table}'); END"
    )
    return [f"DROP TRIGGER IF EXISTS {table}_state", create], create


def _postgresql(table: str, next_states: Mapping[Any, frozenset[Any]]) -> tuple[list[str], str]:
    """The statements that create a trigger, and by what it is known afterwards."""
    statements = [
        (
            "CREATE OR REPLACE FUNCTION newsletter_illegal_transition() RETURNS trigger "
            "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'illegal transition of a %%: %% to %%', "
            "TG_TABLE_NAME, OLD.state, NEW.state USING ERRCODE = 'check_violation'; END $$"
        ),
        f"DROP TRIGGER IF EXISTS {table}_state ON {table}",
        (
            f"CREATE TRIGGER {table}_state BEFORE UPDATE OF state ON {table} FOR EACH ROW "
            f"WHEN ({_illegal(next_states)}) EXECUTE FUNCTION newsletter_illegal_transition()"
        ),
    ]
    mark = "made by " + hashlib.sha256("\n".join(statements).encode()).hexdigest()
    return [*statements, f"COMMENT ON TRIGGER {table}_state ON {table} IS '{mark}'"], mark
