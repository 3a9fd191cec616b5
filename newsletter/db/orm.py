"""The one door to SQLModel: tables, sessions and the MetaData that both packages share.

SQLModel classes describe the tables and serve single rows. Hot paths (plan, claim,
import, event ingest) run Core statements on ``Model.__table__``, reached by ``table_of``.
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
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import AutoString as AutoString
from sqlmodel import Field as Field
from sqlmodel import Session as Session
from sqlmodel import SQLModel
from sqlmodel import UTCDateTime as UTCDateTime

metadata: MetaData = SQLModel.metadata
# Named constraints, so that a migration can drop one on either database and a
# violation can be told from another by its name.
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

#: 64-bit ids; SQLite only numbers a column by itself when it is called INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")
#: JSON objects, indexable on PostgreSQL.
Json = JSON().with_variant(JSONB(), "postgresql")
#: For a table whose rows can go while their numbers live on, in links, mails or the log: SQLite
#: would give the number of the newest row to the next one once it is gone. PostgreSQL never does.
NEVER_AGAIN = {"sqlite_autoincrement": True}
#: A truncated HMAC: 16 bytes keep collisions out of reach for any list of people.
Hash = LargeBinary(16)


class Model(SQLModel):
    """Base of every table."""


def table_of(model: type[SQLModel]) -> Table:
    """The Core table of a model, for statements over sets."""
    table = model.__table__  # type: ignore[attr-defined]
    assert isinstance(table, Table)
    return table


def one_of(column: str, values: Iterable[StrEnum | str]) -> CheckConstraint:
    """A constraint that lets only these words into a text column."""
    # SQLite builds the set of an IN list anew for each row: four times the cost of an update.
    return CheckConstraint(" OR ".join(f"{column} = '{value}'" for value in values), name=column)


def insert_into(session: Session, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say ON CONFLICT, in the session's dialect."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def changed(
    session: Session,
    statement: Update | Delete | Insert,
    values: Mapping[str, Any] | None = None,
) -> int:
    """Run a statement that writes, with values for its parameters; returns how many rows it hit."""
    # For an INSERT, SQLAlchemy forgets the number unless it is told to keep it.
    result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        statement, values, execution_options={"preserve_rowcount": True}
    )
    return result.rowcount


def json_rows(
    session: Session, rows: Select[Any], values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a query as dictionaries, made by the database and read in one piece.

    ``values`` are the query's parameters, so that one that is asked often is built once.
    """
    text = session.scalar(_as_json(rows, session.get_bind().dialect.name), values)
    return orjson.loads(text or "[]")  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _as_json(rows: Select[Any], dialect: str) -> Select[Any]:
    row = rows.subquery()
    if dialect == "postgresql":
        return select(cast(func.json_agg(func.to_json(row.table_valued())), Text))
    # SQLite keeps JSON as text, which would be quoted once more.
    values = [func.json(c) if isinstance(c.type, JSON) else c for c in row.c]
    pairs = [part for c, value in zip(row.c, values, strict=True) for part in (c.name, value)]
    return select(func.json_group_array(func.json_object(*pairs)))
