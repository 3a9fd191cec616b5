"""Many rows as one parameter: a statement over a thousand of them is built and parsed once.

The rows travel as a JSON text, which both databases unfold to a table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
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

from subscribers.schema import Session, insert_into

#: The parameter that holds the rows.
ROWS = "given_rows"


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


def values(session: Session, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What ROWS is given: the rows in JSON, moments as the database writes them."""
    zone = "+00" if session.get_bind().dialect.name == "postgresql" else ""

    def plain(value: object) -> str:
        if isinstance(value, bytes):
            return value.hex()
        assert isinstance(value, datetime), value
        moment = value.astimezone(UTC).replace(tzinfo=None)
        return moment.isoformat(" ", timespec="microseconds") + zone

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
