"""Files of people: what kind one is, and its rows and rejects as one stream.

CSV in any usual dialect and JSON Lines; columns.py knows whose export it may be. Memory
stays flat: a line is at most ``lines.LONGEST`` bytes long, and so is a row.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import StringIO
from typing import Any, BinaryIO

import orjson

from subscribers import own_export
from subscribers.columns import (
    EXPECTED,
    TEXTS,
    ReadCells,
    attribute_key,
    meanings,
    reader_of,
    role_of,
)
from subscribers.errors import UserError
from subscribers.lines import LONGEST, EndlessRowError, Lines, encoding_of, sample_of
from subscribers.rows import (
    Reject,
    Row,
    UnfitError,
    checked_name,
    json_object,
    language,
    moment,
    status,
    texts,
    timezone,
)

_DELIMITERS = (",", ";", "\t", "|")
_SHOWN_ROWS = 50
#: No export has more; each becomes an attribute of every person.
_MOST_COLUMNS = 1000


class People:
    """An opened file: its ``kind``, its ``encoding``, and its rows when it is iterated over."""

    def __init__(self, file: BinaryIO, name: str, *, encoding: str | None = None) -> None:
        self.encoding = encoding_of(file, name, encoding)
        self._lines = Lines(file, self.encoding)
        sample = sample_of(file, self.encoding)
        start = sample.lstrip()
        if not start:
            raise UserError("the file is empty", place=name, hint=_hint())
        if start.startswith("["):
            raise UserError(
                "this is one JSON list, not JSON Lines",
                place=name,
                hint="Write one object a line: jq -c '.[]' FILE",
            )
        self.kind: str
        #: Each column, or key of the first objects, and what becomes of it.
        self.columns: list[tuple[str, str]]
        self._rows: Iterator[Row | Reject]
        if start.startswith("{"):
            self.kind, self.columns, read = _json_reader(sample, name)
            self._rows = self._json_rows(read)
        else:
            self._start_csv(sample, name)

    def __iter__(self) -> Iterator[Row | Reject]:
        return self._rows

    @property
    def tells_who_left(self) -> bool:
        """Whether a row may be of somebody who left: only a column can say so."""
        return self.kind != "CSV" or any(meaning == "status" for _, meaning in self.columns)

    @property
    def text(self) -> str:
        """The present row as it stands in the file."""
        return "".join(self._lines.taken).rstrip("\r\n")

    # CSV.

    def _start_csv(self, sample: str, name: str) -> None:
        delimiter, skipped = _delimiter(sample)
        # csv knows one limit for the whole process; its own is 128 KiB.
        csv.field_size_limit(LONGEST)
        header: list[str] = []
        try:
            for cells in csv.reader(self._lines.each(), delimiter=delimiter, strict=True):
                if cells and self._lines.number > skipped:
                    header = [cell.strip() for cell in cells]
                    break
        except (csv.Error, EndlessRowError) as error:
            raise UserError(
                f"the line of column names cannot be read: {error}",
                place=name,
                hint=_hint(),
            ) from None
        if len(header) > _MOST_COLUMNS:
            raise UserError(
                f"the first line names {len(header):,} columns, and {_MOST_COLUMNS:,} are read",
                place=name,
                hint="Take out the columns that you do not need.",
            )
        self._lines.taken.clear()
        self._lines.flaws.clear()
        found = reader_of(header)
        if found is None:
            seen = ", ".join(f"“{cell[:40]}”" for cell in header[:20])
            raise UserError(f"no column holds addresses: {seen}", place=name, hint=_hint())
        self.kind, read = found
        self.columns = meanings(header)
        self._rows = self._csv_rows(delimiter, len(header), read)

    def _csv_rows(self, delimiter: str, width: int, read: ReadCells) -> Iterator[Row | Reject]:
        lines = self._lines
        taken, flaws = lines.taken, lines.flaws
        while True:
            try:
                for cells in csv.reader(lines.each(), delimiter=delimiter, strict=True):
                    first = lines.number - len(taken) + 1
                    if flaws and (flaw := lines.flaw()):
                        yield Reject(first, flaw, self.text)
                    elif len(cells) != width and (uneven := _uneven(cells, width)):
                        yield Reject(first, uneven, self.text)
                    elif any(cells):
                        try:
                            row = read(cells, first)
                        except UnfitError as error:
                            yield Reject(first, str(error), self.text)
                        else:
                            yield row
                    taken.clear()
            except (csv.Error, EndlessRowError) as error:
                yield from self._unclosed(error)
            else:
                return

    def _unclosed(self, error: Exception) -> Iterator[Reject]:
        """The line of a quote that is never closed, which takes in the lines after it.

        They are read again without the line that opened it.
        """
        lines = self._lines
        reason = lines.flaws.pop(lines.first, None) or f"not CSV: {error}"
        yield Reject(lines.first, reason, lines.taken[0].rstrip("\r\n"))
        lines.give_back(str(error))

    # JSON Lines.

    def _json_rows(self, read: Callable[[dict[str, Any], int], Row]) -> Iterator[Row | Reject]:
        lines = self._lines
        for line in lines.each():
            if lines.flaws and (flaw := lines.flaw()):
                yield Reject(lines.number, flaw, self.text)
            elif not line.isspace():
                try:
                    row = read(json_object(line), lines.number)
                except UnfitError as error:
                    yield Reject(lines.number, str(error), self.text)
                else:
                    yield row
            lines.taken.clear()


def _hint() -> str:
    return (
        f"The first line names the columns, and one of them is {EXPECTED}. "
        "In JSON Lines, each object has the key email."
    )


def _delimiter(sample: str) -> tuple[str, int]:
    """What separates the cells, and how many lines come before the header."""
    first = sample.partition("\n")[0].strip()
    if len(first) == 5 and first.lower().startswith("sep="):  # written for Excel
        return first[4], 1

    def score(delimiter: str) -> tuple[bool, float, int]:
        rows: list[list[str]] = []
        # What the sample cuts off, or another delimiter garbles, counts for nothing.
        with suppress(csv.Error):
            for row in csv.reader(StringIO(sample, newline="\n"), delimiter=delimiter):
                rows.append(row)
                if len(rows) > _SHOWN_ROWS:
                    break
        full = [row for row in rows if row]
        if not full:
            return False, 0, 0
        width = len(full[0])
        alike = sum(len(row) == width for row in full) / len(full)
        return reader_of([cell.strip() for cell in full[0]]) is not None, alike, width

    return max(_DELIMITERS, key=score), 0


def _uneven(cells: list[str], width: int) -> str | None:
    """What is wrong with a row of another width than the header's; empty cells may follow."""
    if not any(cells):
        return None
    if len(cells) > width and not any(cells[width:]):
        del cells[width:]
        return None
    return f"{len(cells)} cells, where the first line has {width}"


def _json_reader(
    sample: str, name: str
) -> tuple[str, list[tuple[str, str]], Callable[[dict[str, Any], int], Row]]:
    keys: dict[str, None] = {}
    # Not splitlines(), which knows more ends of lines than a line feed.
    for number, line in enumerate(sample.split("\n")):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            if number == 0 and own_export.is_own(value):
                return "newsletter", [(key, key) for key in value], _own_json
            keys |= dict.fromkeys(value)
    if keys and not any(role_of(key) == "email" for key in keys):
        seen = ", ".join(f"“{key[:40]}”" for key in list(keys)[:20])
        raise UserError(f"no key holds addresses: {seen}", place=name, hint=_hint())
    columns = [(key, role_of(key) or f"attribute {attribute_key(key)}") for key in keys]
    return "JSON Lines", columns, _JsonReader()


def _own_json(value: dict[str, Any], line: int) -> Row:
    if not own_export.is_own(value):
        raise UnfitError("some of the keys of our export are missing")
    return own_export.from_values(value, line, attribute_key)


class _JsonReader:
    """Reads objects of no known product; typed values stay what they are."""

    def __init__(self) -> None:
        self._meanings: dict[str, tuple[str | None, str]] = {}

    def __call__(self, value: dict[str, Any], line: int) -> Row:
        if own_export.is_own(value):  # after a first line that was too long to look at
            return own_export.from_values(value, line, attribute_key)
        fields: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        for key, item in value.items():
            role, attribute = self._meaning(key)
            if role is None or role in fields:
                attributes[attribute] = item
            elif item is not None:
                fields[role] = item
        for role in fields.keys() & TEXTS:
            if not isinstance(fields[role], str):
                raise UnfitError(f"{role} is not a text")
        document = fields.get("attributes", {})
        if not isinstance(document, dict):
            raise UnfitError("attributes are a JSON object")
        tags = texts(fields.get("tags", []))
        if tags:
            attributes["tags"] = list(tags)
        confirmed_at = _moment(fields, "confirmed_at")
        return Row(
            line=line,
            email=fields.get("email", ""),
            name=checked_name(_name(fields)),
            attributes=document | attributes,
            language=language(fields.get("language", "")),
            timezone=timezone(fields.get("timezone", "")),
            topics=texts(fields.get("topics", [])),
            tags=tags,
            created_at=_moment(fields, "created_at") or confirmed_at,
            confirmed_at=confirmed_at,
            status=status(fields.get("status", "")),
        )

    def _meaning(self, key: str) -> tuple[str | None, str]:
        meaning = self._meanings.get(key)
        if meaning is None:
            meaning = role_of(key), attribute_key(key)
            if len(self._meanings) < 1000:  # keys are the file's: memory stays flat
                self._meanings[key] = meaning
        return meaning


def _name(fields: dict[str, Any]) -> str:
    if "name" in fields:
        return str(fields["name"])
    parts: Sequence[str] = [fields.get("first", "").strip(), fields.get("last", "").strip()]
    return " ".join(part for part in parts if part)


def _moment(fields: dict[str, Any], role: str) -> Any:  # noqa: ANN401 (a moment or None)
    value = fields.get(role, "")
    if not isinstance(value, str):
        raise UnfitError(f"{role} is not a text")
    return moment(value)
