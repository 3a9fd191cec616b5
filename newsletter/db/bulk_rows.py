"""Passes many rows as one parameter, so that a statement for a thousand rows is parsed once.

The parameter is a JSON text, which both databases expand to a table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    ColumnElement,
    Executable,
    FromClause,
    Result,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.types import LargeBinary, TypeEngine

from newsletter.db.dialect import Upsert, insert_into, is_postgresql
from newsletter.db.orm import Session

#: The name of the parameter with the rows.
ROWS = "given_rows"
#: Types that SQLite's driver stores differently from SQLAlchemy.
_STORED_OTHERWISE = frozenset({datetime, bool})


def table(session: Session, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> FromClause:
    """The rows of the parameter ROWS as a table with these columns."""
    text = bindparam(ROWS, type_=Text)
    if is_postgresql(session):
        typed = [column(name, kind) for name, kind in columns.items()]
        unfolded = func.json_to_recordset(cast(text, JSON)).table_valued(*typed, name="given")
        return unfolded.render_derived(with_types=True)
    entry = func.json_each(text).table_valued("value", name="entry")
    return select(
        *(
            func.json_extract(entry.c.value, f"$.{name}", type_=kind).label(name)
            for name, kind in columns.items()
        )
    ).subquery("given")


def insert_new(
    session: Session, into: Table, rows: Sequence[Mapping[str, Any]], key: str
) -> set[Any]:
    """Insert rows with the same columns; returns ``key`` of those that did not exist yet.

    On SQLite, the table must have ascending row ids (not WITHOUT ROWID).
    """
    if is_postgresql(session):
        new = insert(
            session, into, rows, lambda i: i.on_conflict_do_nothing().returning(into.c[key])
        )
        return set(new.scalars())
    # Bypasses SQLAlchemy's conversion of each value, which takes longer than SQLite itself.
    connection, names = session.connection(), list(rows[0])
    numbered = f"FROM {into.name} WHERE rowid > "
    last = connection.exec_driver_sql(f"SELECT max(rowid) {numbered} 0").scalar() or 0
    stored = [
        tuple(_stored(v) if type(v) in _STORED_OTHERWISE else v for v in row.values())
        for row in rows
    ]
    connection.exec_driver_sql(
        f"INSERT INTO {into.name} ({', '.join(map(_quoted, names))})"  # noqa: S608
        f" VALUES ({', '.join('?' * len(names))}) ON CONFLICT DO NOTHING",
        stored,
    )
    return set(connection.exec_driver_sql(f"SELECT {_quoted(key)} {numbered} {last}").scalars())


def _stored(value: datetime | bool, /) -> str | int:  # noqa: FBT001 (a value)
    return _moment(value) if isinstance(value, datetime) else int(value)


def _quoted(name: str) -> str:
    return f'"{name}"'


@lru_cache(maxsize=100_000)
def _moment(moment: datetime) -> str:
    """The time in UTC as the databases write it."""
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(" ", timespec="microseconds")


def values(session: Session, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The parameter ROWS: the rows in JSON, with times as the database writes them."""
    zone = "+00" if is_postgresql(session) else ""

    def plain(value: object) -> str:
        if isinstance(value, bytes):
            return value.hex()
        assert isinstance(value, datetime), value
        return _moment(value) + zone

    encoded = orjson.dumps(list(rows), default=plain, option=orjson.OPT_PASSTHROUGH_DATETIME)
    return {ROWS: encoded.decode()}


def insert(
    session: Session,
    into: Table,
    rows: Sequence[Mapping[str, Any]],
    then: Callable[[Upsert], Executable],
) -> Result[Any]:
    """Insert rows with the same columns; ``then`` adds ON CONFLICT and RETURNING.

    PostgreSQL's driver takes longer to process a statement with 13,000 parameters than the server
    to run it, so all rows are one parameter there. SQLite takes the values row by row.
    """
    names, statement = list(rows[0]), insert_into(session, into)
    if not is_postgresql(session):
        return session.execute(then(statement), rows)
    binary = {name for name in names if isinstance(into.c[name].type, LargeBinary)}
    row = table(session, **{n: Text if n in binary else into.c[n].type for n in names})
    columns: list[ColumnElement[Any]] = [
        func.decode(row.c[name], "hex") if name in binary else row.c[name] for name in names
    ]
    return session.execute(
        then(statement.from_select(names, select(*columns))), values(session, rows)
    )
