"""Database triggers that refuse illegal state transitions of sends, batches and deliveries.

They are generated from the tables in states.py whenever the schema is upgraded. They also
refuse illegal changes that an operator types by hand or that another program makes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from newsletter.db.dialect import is_postgresql
from newsletter.sending.states import BATCH_NEXT, DELIVERY_NEXT, SEND_NEXT

GUARDED: Mapping[str, Mapping[Any, frozenset[Any]]] = {
    "send": SEND_NEXT,
    "batch": BATCH_NEXT,
    "delivery": DELIVERY_NEXT,
}


def install(connection: Connection) -> None:
    """Create the triggers of the current transition tables; replaces existing ones."""
    make = _postgresql if is_postgresql(connection) else _sqlite
    for table, next_states in GUARDED.items():
        for statement in make(table, next_states):
            connection.exec_driver_sql(statement)


def _illegal(next_states: Mapping[Any, frozenset[Any]]) -> str:
    """The SQL condition of an illegal change. SQLite needs three times as long for IN lists."""
    cases = " ".join(
        f"WHEN '{state}' THEN "
        + (" AND ".join(f"NEW.state <> '{target}'" for target in sorted(after)) or "TRUE")
        for state, after in next_states.items()
    )
    return f"NEW.state <> OLD.state AND CASE OLD.state {cases} ELSE TRUE END"


def _sqlite(table: str, next_states: Mapping[Any, frozenset[Any]]) -> Iterator[str]:
    yield f"DROP TRIGGER IF EXISTS {table}_state"
    yield (
        f"CREATE TRIGGER {table}_state AFTER UPDATE OF state ON {table} "
        f"WHEN {_illegal(next_states)} "
        f"BEGIN SELECT RAISE(ABORT, 'illegal transition of a {table}'); END"
    )


def _postgresql(table: str, next_states: Mapping[Any, frozenset[Any]]) -> Iterator[str]:
    yield (
        "CREATE OR REPLACE FUNCTION newsletter_illegal_transition() RETURNS trigger "
        "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'illegal transition of a %%: %% to %%', "
        "TG_TABLE_NAME, OLD.state, NEW.state USING ERRCODE = 'check_violation'; END $$"
    )
    yield f"DROP TRIGGER IF EXISTS {table}_state ON {table}"
    yield (
        f"CREATE TRIGGER {table}_state BEFORE UPDATE OF state ON {table} FOR EACH ROW "
        f"WHEN ({_illegal(next_states)}) EXECUTE FUNCTION newsletter_illegal_transition()"
    )
