"""A checksum of a table's contents that is the same on SQLite and PostgreSQL.

The rows come from table_rows.py. JSON still has the spaces and the digits of its database, so it is
read and written in one form. The hashes of the rows are added up, because the databases do not sort
text alike.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import orjson
from sqlalchemy import JSON, DateTime, Table

from newsletter.db.orm import UTCDateTime

_BYTES: Final = 16
_MODULUS: Final = 1 << 8 * _BYTES
#: What may be a number with several forms: PostgreSQL makes 10 of 1e1.
_NUMBER: Final = re.compile(r"\d[.eE][\d+-]|\d{19}")
#: Larger whole numbers have no form of their own in orjson.
_MAX_WHOLE: Final = 2.0**63
#: The characters of a time as SQLAlchemy writes it into SQLite.
_TIME_LENGTH: Final = 26


class TableChecksum:
    """The number of rows, and the sum of their hashes."""

    def __init__(self, table: Table) -> None:
        self.rows = self._sum = 0
        self._json = [n for n, column in enumerate(table.c) if isinstance(column.type, JSON)]
        self._times = [
            n for n, column in enumerate(table.c) if isinstance(column.type, UTCDateTime | DateTime)
        ]

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows with the values of all columns in order."""
        total, json_columns, times = self._sum, self._json, self._times
        for row in rows:
            values = list(row)
            for n in json_columns:
                values[n] = _json(values[n])
            for n in times:
                if (time := values[n]) is not None and len(time) != _TIME_LENGTH:
                    values[n] = datetime.fromisoformat(time).isoformat(" ", "microseconds")
            text = orjson.dumps(values, default=bytes.hex, option=orjson.OPT_SORT_KEYS)
            total += int.from_bytes(blake2b(text, digest_size=_BYTES).digest(), "big")
            self.rows += 1
        self._sum = total % _MODULUS

    @property
    def value(self) -> tuple[int, str]:
        """What is compared: the number of rows, and the sum as text."""
        return self.rows, f"{self._sum:0{2 * _BYTES}x}"


def _json(text: str) -> Any:  # noqa: ANN401 (any JSON value)
    value = orjson.loads(text)
    return _canonical(value) if _NUMBER.search(text) else value


def _canonical(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """The value with one form for each number."""
    match value:
        case dict():
            return {key: _canonical(one) for key, one in value.items()}
        case list():
            return [_canonical(one) for one in value]
        case float() if value.is_integer():
            return int(value) if abs(value) < _MAX_WHOLE else f"number {int(value)}"
        case _:
            return value
