"""Many rows as one parameter: a statement over a thousand of them is built and parsed once.

The rows travel as a JSON text, which both databases unfold to a table.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import JSON, FromClause, Text, bindparam, cast, column, func, select
from sqlalchemy.types import TypeEngine

from subscribers.schema import Session

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
        assert isinstance(value, datetime), value
        moment = value.astimezone(UTC).replace(tzinfo=None)
        return moment.isoformat(" ", timespec="microseconds") + zone

    encoded = orjson.dumps(list(rows), default=plain, option=orjson.OPT_PASSTHROUGH_DATETIME)
    return {ROWS: encoded.decode()}
