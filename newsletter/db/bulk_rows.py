"""Many rows as one parameter: a statement over a thousand of them is built and parsed once.

The rows travel as a JSON text, which both databases unfold to a table.
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
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import LargeBinary, TypeEngine

from newsletter.db.orm import Session, insert_into

#: The parameter that holds the rows.
ROWS = "given_rows"
#: What SQLite's driver does not write as SQLAlchemy reads it.
_STORED_OTHERWISE = frozenset({datetime, bool})


def table(session: Session, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> FromClause:
    """The rows of the parameter ROWS as a table with these columns."""
    text = bindparam(ROWS, type_=Text)
    if session.get_bind().dialect.name == "postgresql":
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
    """Insert rows that all have the same columns; ``key`` of those that were not there yet.

    On SQLite the table numbers its rows (it is not WITHOUT ROWID), always upwards.
    """
    if session.get_bind().dialect.name == "postgresql":
        new = insert(
            session, into, rows, lambda i: i.on_conflict_do_nothing().returning(into.c[key])
        )
        return set(new.scalars())
    # Past SQLAlchemy's handling of each value, which takes longer than SQLite does.
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
    """As the databases write it, in UTC."""
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(" ", timespec="microseconds")


def values(session: Session, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What ROWS is given: the rows in JSON, moments as the database writes them."""
    zone = "+00" if session.get_bind().dialect.name == "postgresql" else ""

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
    then: Callable[[sqlite.Insert | postgresql.Insert], Executable],
) -> Result[Any]:
    """Insert rows that all have the same columns; ``then`` says what of conflicts and RETURNING.

    PostgreSQL's driver reads a statement of 13,000 parameters for longer than the server
    needs to run it, so there they are one; SQLite takes values by the row.
    """
    names, statement = list(rows[0]), insert_into(session, into)
    if session.get_bind().dialect.name != "postgresql":
        return session.execute(then(statement), rows)
    binary = {name for name in names if isinstance(into.c[name].type, LargeBinary)}
    row = table(session, **{n: Text if n in binary else into.c[n].type for n in names})
    columns: list[ColumnElement[Any]] = [
        func.decode(row.c[name], "hex") if name in binary else row.c[name] for name in names
    ]
    return session.execute(
        then(statement.from_select(names, select(*columns))), values(session, rows)
    )
