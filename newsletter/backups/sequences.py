"""The ids that a database gives next: SQLite's table of sequences, PostgreSQL's sequences."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Engine, Table, func, select, text

from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import transaction


def copy_sequences(reader: Connection, target: Engine, tables: Sequence[Table]) -> None:
    """Let the target give the ids that the source would give next."""
    with transaction(target) as session:
        connection = session.connection()
        for table in tables:
            column = table.autoincrement_column
            if column is None:
                continue
            highest = reader.scalar(select(func.max(column))) or 0
            highest = max(highest, _last_given(reader, table, column))
            if highest:
                _set_last_given(connection, table, column, highest)


def _last_given(reader: Connection, table: Table, column: Column[Any]) -> int:
    if is_postgresql(reader):
        name = _sequence(reader, table, column)
        if name is None:
            return 0
        row = reader.execute(text(f"SELECT last_value, is_called FROM {name}")).one()  # noqa: S608
        return int(row.last_value) if row.is_called else 0
    if not _has_sqlite_sequences(reader):
        return 0
    given = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
    return int(reader.scalar(given, {"name": table.name}) or 0)


def _set_last_given(
    connection: Connection, table: Table, column: Column[Any], highest: int
) -> None:
    if is_postgresql(connection):
        name = _sequence(connection, table, column)
        if name is not None:
            connection.execute(
                text("SELECT setval(:name, :value)"), {"name": name, "value": highest}
            )
        return
    if table.dialect_options["sqlite"]["autoincrement"]:
        values = {"name": table.name, "value": highest}
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), values)
        given = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :value)")
        connection.execute(given, values)


def _sequence(connection: Connection, table: Table, column: Column[Any]) -> str | None:
    name = text("SELECT pg_get_serial_sequence(:table, :column)")
    values = {"table": f'"{table.name}"', "column": column.name}
    found: str | None = connection.scalar(name, values)
    return found


def _has_sqlite_sequences(reader: Connection) -> bool:
    listed = text("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'")
    return bool(reader.scalar(listed))
