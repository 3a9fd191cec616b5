"""The differences between SQLite and PostgreSQL, each behind one function.

Statements that only one of the databases needs, such as PostgreSQL's partitions and both kinds of
triggers, are with their tables.
"""

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Table,
    Text,
    cast,
    collate,
    delete,
    false,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

#: An INSERT statement with ON CONFLICT, in the dialect of either database.
Upsert = sqlite.Insert | postgresql.Insert


def is_postgresql(database: Session | Connection | Engine) -> bool:
    """Whether this is PostgreSQL; otherwise it is SQLite."""
    bind = database.get_bind() if isinstance(database, Session) else database
    return bind.dialect.name == "postgresql"


def insert_into(session: Session, table: Table) -> Upsert:
    """An INSERT statement with ON CONFLICT, in the session's dialect."""
    return postgresql.insert(table) if is_postgresql(session) else sqlite.insert(table)


def with_snapshots(engine: Engine) -> Engine:
    """The engine, with transactions that see the database as of their beginning, as on SQLite."""
    if is_postgresql(engine):
        return engine.execution_options(isolation_level="REPEATABLE READ")
    return engine


def lock(session: Session, name: str) -> None:
    """Wait for the exclusive right of this name, and keep it until the transaction ends.

    SQLite has one writing transaction at a time anyway.
    """
    if is_postgresql(session):
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))


def lock_table(session: Session, table: Table) -> None:
    """Keep other transactions from writing to the table until this one ends."""
    if is_postgresql(session):
        session.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
    else:
        # A write that changes nothing takes SQLite's write lock.
        session.execute(delete(table).where(false()))


def by_code_points(session: Session, column: Column[str]) -> ColumnElement[str]:
    """The text column compared by code points, as in Python; PostgreSQL compares by language."""
    return collate(column, "C" if is_postgresql(session) else "BINARY")


def joined(session: Session, column: ColumnElement[str], separator: str) -> ColumnElement[str]:
    """An aggregate of the column's texts in one text."""
    function = func.string_agg if is_postgresql(session) else func.group_concat
    return function(column, separator)


def random_hex(database: Session) -> ColumnElement[str]:
    """A random text of 32 hexadecimal digits, another one in each row."""
    if is_postgresql(database):
        return func.replace(cast(func.gen_random_uuid(), Text), "-", "")
    return func.lower(func.hex(func.randomblob(16)))
