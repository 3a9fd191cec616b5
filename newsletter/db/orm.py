"""The adapter for SQLModel: base class, column types, sessions and the shared MetaData.

SQLModel classes define the tables and are used for single rows. Code for many rows (plan, claim,
import, event ingest) runs Core statements on the table that ``table_of`` returns.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    CursorResult,
    Delete,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    Update,
    cast,
    func,
    select,
)
from sqlalchemy import Row as Row
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import AutoString as AutoString
from sqlmodel import Field as Field
from sqlmodel import Session as Session
from sqlmodel import SQLModel
from sqlmodel import UTCDateTime as UTCDateTime

from newsletter.db.dialect import is_postgresql

metadata: MetaData = SQLModel.metadata
# Named constraints, so that migrations can drop one on either database, and code can tell
# violations apart by name.
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

#: 64-bit ids. SQLite assigns ids only in a column of type INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")
#: JSON objects, indexable on PostgreSQL.
Json = JSON().with_variant(JSONB(), "postgresql")
#: For tables whose deleted rows may still be referred to by id, in links, emails or the audit log:
#: without it, SQLite gives the id of a deleted newest row to the next one. PostgreSQL never does.
NEVER_AGAIN = {"sqlite_autoincrement": True}
#: A truncated HMAC: 16 bytes make collisions practically impossible for any list size.
Hash = LargeBinary(16)


class Model(SQLModel):
    """Base of every table."""


def table_of(model: type[SQLModel]) -> Table:
    """The Core table of a model."""
    table = model.__table__  # type: ignore[attr-defined]
    assert isinstance(table, Table)
    return table


def one_of(column: str, values: Iterable[StrEnum | str]) -> CheckConstraint:
    """A constraint that a text column has one of these values."""
    # Not IN: SQLite would rebuild the list for each row, which makes an update four times slower.
    return CheckConstraint(" OR ".join(f"{column} = '{value}'" for value in values), name=column)


def changed(
    session: Session,
    statement: Update | Delete | Insert,
    values: Mapping[str, Any] | None = None,
) -> int:
    """Run an UPDATE, DELETE or INSERT with these parameters; returns the number of rows."""
    # Without this option, SQLAlchemy does not keep the number for an INSERT.
    result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        statement, values, execution_options={"preserve_rowcount": True}
    )
    return result.rowcount


def json_rows(
    session: Session, rows: Select[Any], values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a query as dictionaries; the database returns them as one JSON text.

    ``values`` are the query's parameters, so that a frequent query is compiled once.
    """
    text = session.scalar(_as_json(rows, postgresql=is_postgresql(session)), values)
    return orjson.loads(text or "[]")  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _as_json(rows: Select[Any], *, postgresql: bool) -> Select[Any]:
    row = rows.subquery()
    if postgresql:
        return select(cast(func.json_agg(func.to_json(row.table_valued())), Text))
    # SQLite stores JSON as text, which would be quoted again.
    values = [func.json(c) if isinstance(c.type, JSON) else c for c in row.c]
    pairs = [part for c, value in zip(row.c, values, strict=True) for part in (c.name, value)]
    return select(func.json_group_array(func.json_object(*pairs)))
