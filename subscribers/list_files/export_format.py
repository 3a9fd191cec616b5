"""The columns of our own export: an import of it restores all subscribers.

In CSV, each cell is made safe for spreadsheets; values other than text are JSON or times in
ISO 8601. In JSON Lines, the same names have typed values.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from subscribers.field_values import InvalidValueError, checked_name, json_value
from subscribers.list_files.cell_values import moment, status, texts
from subscribers.list_files.csv_safety import plain, safe
from subscribers.list_files.row import ConsentGiven, ExportedState, Row
from subscribers.list_files.status_words import LEAVING

COLUMNS = (
    "email",
    "name",
    "language",
    "timezone",
    "topics",
    "attributes",
    "source",
    "created_at",
    "confirmed_at",
    "paused_until",
    "last_open_at",
    "last_click_at",
    "status",
    "status_at",
    "status_evidence",
    "consent",
)
_ALL = frozenset(COLUMNS)
_STRUCTURED = frozenset({"topics", "attributes", "consent"})


def is_own(names: Collection[str]) -> bool:
    """Whether these are the columns of our own export, perhaps with others added."""
    return _ALL.issubset(names)


def cells(person: Mapping[str, Any]) -> list[str]:
    """A subscriber as CSV cells."""
    return [_cell(person[name]) for name in COLUMNS]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, datetime):
        return value.isoformat()  # begins with a digit
    return orjson.dumps(value).decode()  # begins with a bracket


def json_line(person: Mapping[str, Any]) -> bytes:
    """A subscriber as a line of JSON Lines."""
    return orjson.dumps({name: person[name] for name in COLUMNS}, option=orjson.OPT_APPEND_NEWLINE)


def from_cells(
    header: Sequence[str], extra: Callable[[str], str | None]
) -> Callable[[list[str], int], Row]:
    """A reader of CSV rows; ``extra`` returns the attribute of an added column, if any."""

    def read(line: list[str], number: int) -> Row:
        values: dict[str, Any] = {}
        for name, cell in zip(header, line, strict=True):
            text = plain(cell)
            if name in _STRUCTURED:
                values[name] = json_value(text, name) if text else None
            else:
                values[name] = text
        return from_values(values, number, extra)

    return read


def from_values(values: Mapping[str, Any], line: int, extra: Callable[[str], str | None]) -> Row:
    """The subscriber with these values by column name."""
    attributes = values["attributes"] or {}
    if not isinstance(attributes, dict):
        raise InvalidValueError("attributes must be a JSON object")
    added = {
        key: value
        for name, value in values.items()
        if name not in COLUMNS and value and (key := extra(name))
    }
    state = status(_word(values, "status"))
    return Row(
        line=line,
        email=_word(values, "email"),
        name=checked_name(_word(values, "name")),
        attributes=attributes | added,
        # Not checked again: it was valid when stored, and the rules may have changed since.
        language=_word(values, "language", 35) or None,
        timezone=_word(values, "timezone", 64) or None,
        topics=texts(values["topics"] or []),
        created_at=moment(_word(values, "created_at")),
        confirmed_at=moment(_word(values, "confirmed_at")),
        status=state,
        status_at=moment(_word(values, "status_at")),
        source=_word(values, "source", 100),
        exported=ExportedState(
            paused_until=moment(_word(values, "paused_until")),
            last_open_at=moment(_word(values, "last_open_at")),
            last_click_at=moment(_word(values, "last_click_at")),
            evidence=_word(values, "status_evidence", 1000) if state in LEAVING else "",
            consents=tuple(_consent(act) for act in values["consent"] or []),
        ),
    )


def _consent(act: object) -> ConsentGiven:
    try:
        assert isinstance(act, dict)
        at = moment(act["at"])
        assert at is not None
        assert act["act"] in {"requested", "confirmed", "imported", "withdrawn"}
        return ConsentGiven(
            at,
            act["act"],
            _word(act, "source", 100),
            _word(act, "wording", 2000),
            _word(act, "ip", 45) or None,
            _word(act, "user_agent", 500) or None,
        )
    except (AssertionError, KeyError, AttributeError):
        raise InvalidValueError("the consent records differ from the export format") from None


def _word(values: Mapping[str, Any], name: str, limit: int = 0) -> str:
    value = values[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidValueError(f"{name} must be a text")
    if limit and len(value) > limit:
        raise InvalidValueError(f"{name} is longer than {limit} characters")
    return value
