"""Reads list files: detects the format, maps the columns, and yields the rows.

It reads CSV in all usual dialects and JSON Lines; column_mapping.py recognizes other products'
exports. A file is read twice: inspection.py checks all cells before the first row is imported.
Memory stays flat: a line or a row has at most ``decoding.LONGEST`` bytes.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from typing import Any, BinaryIO

import orjson

from newsletter.errors import AddressError, UserError
from subscribers.email_address import parse
from subscribers.field_values import (
    InvalidValueError,
    checked_name,
    json_object,
    language,
    timezone,
)
from subscribers.list_files import export_format, rejects
from subscribers.list_files.cell_values import moment, texts
from subscribers.list_files.column_mapping import (
    EXPECTED,
    TEXTS,
    WORD_MEANINGS,
    Layout,
    ReadCells,
    attribute_key,
    cell_reader,
    certain,
    dig,
    has_addresses,
    layout_of,
    text_of,
    unknown_word,
    word_to_state,
)
from subscribers.list_files.csv_safety import plain
from subscribers.list_files.dates import ORDERS
from subscribers.list_files.decoding import LONGEST, EndlessRowError, Lines, encoding_of, sample_of
from subscribers.list_files.inspection import CHUNK, Inspection, Question
from subscribers.list_files.row import RejectedRow, Row
from subscribers.list_files.row_status import CellReader, UnknownWordError, key_of, strongest
from subscribers.list_files.status_words import STRENGTH, SUBSCRIBED, UNCONFIRMED, state_of_file

_DELIMITERS = (",", ";", "\t", "|")
_SHOWN_ROWS = 50
#: No export has more; each would become an attribute of every subscriber.
_MOST_COLUMNS = 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """The operator's options for reading a file."""

    #: The file's encoding, where detection is wrong.
    encoding: str | None = None
    #: Column → meaning: column_mapping.MEANINGS.
    mapping: tuple[tuple[str, str], ...] = ()
    #: A word of a status column → its meaning: column_mapping.WORD_MEANINGS.
    words: tuple[tuple[str, str], ...] = ()
    #: The status of all rows that have no stronger one.
    everybody: str | None = None
    #: ``dmy`` or ``mdy``.
    dates: str | None = None
    #: The name of the file, if that is not ``name``.
    filename: str | None = None

    @property
    def state_of_all(self) -> str | None:
        """The status that all rows have at least."""
        return word_to_state(self.everybody, "--as") if self.everybody else None

    @property
    def states_of_words(self) -> dict[str, str]:
        """Words of status columns that the operator explained → status."""
        return {key_of(word): word_to_state(meaning, word) for word, meaning in self.words}


class SubscriberFile:
    """An opened file: its ``kind``, its ``encoding``, and its rows as an iterator.

    ``questions`` are its open questions. As long as there are any, the rows that they concern do
    not count as ones that may be emailed.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        *,
        encoding: str | None = None,
        reading: Reading | None = None,
    ) -> None:
        reading = reading or Reading(encoding=encoding)
        if reading.dates is not None and reading.dates not in ORDERS:
            raise UserError(
                "dates must be dmy or mdy", place="--dates", hint="Example: --dates mdy"
            )
        self._file, self._name, self._reading = file, name, reading
        self._words = reading.states_of_words
        self._everybody = reading.state_of_all
        self.encoding = encoding_of(file, name, reading.encoding)
        self._lines = Lines(file, self.encoding)
        self.questions: list[Question] = []
        #: Topics in the file, each with its first line.
        self.topics: dict[str, int] = {}
        #: The separator of the cells; None in JSON Lines.
        self.delimiter: str | None = None
        self.header: list[str] = []
        self.layout: Layout
        self._is_closed = False
        self._skipped, self._hidden, self._has_header = 0, 0, True
        self._open: Callable[[], Iterator[Row | RejectedRow]] = lambda: iter(())
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
        self._rows: Iterator[Row | RejectedRow]
        if start.startswith("{"):
            self._start_json(sample)
        else:
            self._start_csv(sample)
        if self.can_be_read:
            self._ask_about_name()

    @property
    def kind(self) -> str:
        """The detected format, by the product that wrote it."""
        return self.layout.kind

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Each column, or key of the objects, and its meaning."""
        return self.layout.meanings

    def __iter__(self) -> Iterator[Row | RejectedRow]:
        return self._rows

    @property
    def may_exclude(self) -> bool:
        """Whether a row may say that somebody left."""
        return bool(self.kind not in {"CSV", "JSON Lines"} or self.layout.states or self._everybody)

    @property
    def can_be_read(self) -> bool:
        """Whether the rows can be read, that is, the address column is known."""
        return not self._is_closed

    @property
    def text(self) -> str:
        """The current row as it is in the file."""
        return "".join(self._lines.taken).rstrip("\r\n")

    def _ask_about_name(self) -> None:
        """Ask about a file whose name says that its people left; until then nobody is emailed."""
        named = state_of_file(self._reading.filename or self._name)
        if named is None or self._everybody is not None:
            return
        people = SubscriberFile(
            self._file,
            "",
            reading=Reading(
                self._reading.encoding,
                self._reading.mapping,
                self._reading.words,
                dates=self._reading.dates,
                filename="people",
            ),
        )
        for row in people:
            if isinstance(row, Row) and row.status == SUBSCRIBED:
                break
        else:
            self._start_again()
            return
        word = next(one for one, state in WORD_MEANINGS.items() if state == named)
        # Until the answer nobody counts as a recipient.
        self._everybody = UNCONFIRMED
        self._start_again()
        self.questions.append(
            Question(
                "file",
                self._name,
                f"the file’s name says {word}, but line {row.line} does not",
                f"Say what its people are: --as {word}; or --as subscribed, if the name misleads.",
                (row.email,),
                row.line,
            )
        )

    def _start_again(self) -> None:
        """Go back to the first row: the inspection has read the file meanwhile."""
        self._lines = Lines(self._file, self.encoding)
        self._rows = self._open()

    def _checked(self, row: Row) -> Row:
        """The row, with the status for the whole file if that is stronger."""
        state = self._everybody
        if state is not None and STRENGTH[state] > STRENGTH[row.status]:
            return row._replace(status=state)
        return row

    # CSV.

    def _start_csv(self, sample: str) -> None:
        self.delimiter, self._skipped = _delimiter(sample)
        # The csv module has one limit for the whole process, 128 KiB by default.
        csv.field_size_limit(LONGEST)
        header = self._first_cells()
        if len(header) > _MOST_COLUMNS:
            raise UserError(
                f"the first line has {len(header):,} columns, more than {_MOST_COLUMNS:,}",
                place=self._name,
                hint="Remove the columns that you do not need.",
            )
        self._hidden = len(rejects.COLUMNS) if rejects.is_reject_file(header) else 0
        if header == list(rejects.COLUMNS):
            self._start_rejected_json()
            return
        names = [plain(cell) for cell in header[self._hidden :]] if self._hidden else header
        if not has_addresses(names) and _holds_address(header):
            self._has_header = False
            names = [
                "email"
                if _is_address(cell) and not any(map(_is_address, header[:n]))
                else f"column {n + 1}"
                for n, cell in enumerate(header)
            ]
        self.header = names
        self.layout = layout_of(names, self._reading.mapping, is_own=export_format.is_own(names))
        self._open = self._csv_from_start
        if self.layout.find("email") is None:
            self._ask_for_addresses(header)
            return
        if not self._has_header and self._everybody is None:
            self._ask_for_header(header)
            return
        inspection = Inspection(self.layout, self._words, self._reading.dates)
        if inspection.is_needed:
            rows, lines = [], []
            for cells, line in self._cells(Lines(self._file, self.encoding)):
                rows.append(cells)
                lines.append(line)
                if len(rows) == CHUNK:
                    inspection.see_rows(rows, lines)
                    rows, lines = [], []
            inspection.see_rows(rows, lines)
        self.questions += inspection.questions()
        self.topics = inspection.topics
        self._start_again()

    def _first_cells(self) -> list[str]:
        try:
            for cells in csv.reader(
                self._lines.each(), delimiter=self.delimiter or ",", strict=True
            ):
                if cells and self._lines.number > self._skipped:
                    return [cell.strip() for cell in cells]
        except (csv.Error, EndlessRowError) as error:
            raise UserError(
                f"the line of column names cannot be read: {error}",
                place=self._name,
                hint=_hint(),
            ) from None
        return []

    def _ask_for_addresses(self, header: list[str]) -> None:
        seen = ", ".join(f"“{cell[:40]}”" for cell in header[:20])
        self._ask_which(f"no column has addresses: {seen}", self._address_column())

    def _address_column(self) -> str | None:
        """The first column whose cells look like addresses."""
        for number, (cells, _) in enumerate(self._cells(Lines(self._file, self.encoding))):
            found = next((n for n, cell in enumerate(cells) if _holds_address([cell])), None)
            if found is not None:
                return self.header[found] or f"#{found + 1}"
            if number >= _SHOWN_ROWS:
                break
        return None

    def _ask_which(self, message: str, guess: str | None) -> None:
        """Ask for the address column, if any cells look like addresses."""
        if guess is None:
            raise UserError(message, place=self._name, hint=_hint())
        answer = f'Say which one does: --map "{guess}=email". {_hint()}'
        self._ask_or_stop(Question("email", guess, message, answer))

    def _ask_for_header(self, header: list[str]) -> None:
        seen = ", ".join(f"“{cell[:40]}”" for cell in header[:20])
        self._ask_or_stop(
            Question(
                "file",
                self._name,
                f"no column has addresses: {seen}",
                "The first line is a subscriber, not column names. Say what these people "
                f"are: --as unsubscribed for people who left, or --as subscribed. {_hint()}",
                line=1,
            )
        )

    def _ask_or_stop(self, question: Question) -> None:
        """Add the question, and stop there: without addresses no row can be read."""
        self.questions.append(question)
        self._is_closed = True
        self._rows = _raises(unanswered(self.questions, self._name))

    def _csv_from_start(self) -> Iterator[Row | RejectedRow]:
        read = cell_reader(self.layout, self._words)
        if self._everybody is None:
            return self._csv_rows(self._lines, read)
        return self._csv_rows(self._lines, lambda cells, line: self._checked(read(cells, line)))

    def _cells(self, lines: Lines) -> Iterator[tuple[list[str], int]]:
        """The cells and the line of each valid row."""

        def keep(cells: list[str], line: int) -> Any:  # noqa: ANN401 (not a Row yet)
            return cells, line

        for item in self._csv_rows(lines, keep):
            if type(item) is not RejectedRow:
                yield item  # type: ignore[misc]

    def _csv_rows(self, lines: Lines, read: ReadCells) -> Iterator[Row | RejectedRow]:
        taken = lines.taken
        delimiter, width = self.delimiter or ",", len(self.header) + self._hidden
        is_header = self._has_header
        while True:
            try:
                for cells in csv.reader(lines.each(), delimiter=delimiter, strict=True):
                    first = lines.number - len(taken) + 1
                    if first <= self._skipped or (is_header and not cells):
                        lines.flaws.clear()
                    elif is_header:
                        is_header = False
                        lines.flaws.clear()
                    elif flaw := (lines.flaws and lines.flaw()) or _uneven(cells, width):
                        yield RejectedRow(first, flaw, self._text_of(lines))
                    elif any(cells):
                        yield self._row(lines, read, cells, first)
                    taken.clear()
            except (csv.Error, EndlessRowError) as error:
                yield self._unclosed(lines, error)
            else:
                return

    @staticmethod
    def _unclosed(lines: Lines, error: Exception) -> RejectedRow:
        """Reject the line with a quote that is never closed.

        The lines after it, which the quote swallowed, are read again.
        """
        reason = lines.flaws.pop(lines.first, None) or f"not CSV: {error}"
        reject = RejectedRow(lines.first, reason, lines.taken[0].rstrip("\r\n"))
        lines.read_again(str(error))
        return reject

    def _row(self, lines: Lines, read: ReadCells, cells: list[str], line: int) -> Row | RejectedRow:
        hidden = self._hidden
        try:
            return read([plain(cell) for cell in cells[hidden:]] if hidden else cells, line)
        except InvalidValueError as error:
            return RejectedRow(line, str(error), self._text_of(lines))

    @staticmethod
    def _text_of(lines: Lines) -> str:
        return "".join(lines.taken).rstrip("\r\n")

    # JSON Lines.

    def _start_json(self, sample: str) -> None:
        keys, is_own = _keys(sample)
        self._open_json(keys, is_own=is_own, objects=self._objects)

    def _start_rejected_json(self) -> None:
        """Start with a reject file of JSON Lines, which has each object in a cell."""
        self.header = list(rejects.COLUMNS)
        self._hidden = 0
        keys: dict[str, None] = {}
        for value, _ in self._rejected_objects(Lines(self._file, self.encoding)):
            if not isinstance(value, RejectedRow) and len(keys) < 1000:
                keys |= dict.fromkeys(value)
        is_own = export_format.is_own(keys)
        self._open_json(list(keys), is_own=is_own, objects=self._rejected_objects)

    def _open_json(
        self,
        keys: list[str],
        *,
        is_own: bool,
        objects: Callable[[Lines], Iterator[tuple[dict[str, Any] | RejectedRow, int]]],
    ) -> None:
        self.layout = layout_of(keys, self._reading.mapping, is_own=is_own, is_json=True)
        self._open = lambda: self._json_rows(objects)
        if keys and self.layout.find("email") is None:
            seen = ", ".join(f"“{key[:40]}”" for key in keys[:20])
            first = next((one for one, _ in objects(Lines(self._file, self.encoding))), {})
            held = first.items() if isinstance(first, dict) else ()
            guess = next((k for k, v in held if isinstance(v, str) and _holds_address([v])), None)
            self._ask_which(f"no key has addresses: {seen}", guess)
            return
        inspection = Inspection(self.layout, self._words, self._reading.dates)
        chunk: list[tuple[dict[str, Any], int]] = []
        for value, line in objects(Lines(self._file, self.encoding)):
            if isinstance(value, RejectedRow):
                continue
            if is_own:
                value = {k: v for k, v in value.items() if k not in _OWN_UNSEEN}  # noqa: PLW2901
            chunk.append((value, line))
            if len(chunk) == CHUNK:
                inspection.see_objects(chunk)
                chunk = []
        inspection.see_objects(chunk)
        self.questions += inspection.questions()
        self.topics = inspection.topics
        self._start_again()

    def _objects(self, lines: Lines) -> Iterator[tuple[dict[str, Any] | RejectedRow, int]]:
        for line in lines.each():
            if lines.flaws and (flaw := lines.flaw()):
                yield RejectedRow(lines.number, flaw, self._text_of(lines)), lines.number
            elif not line.isspace():
                yield self._object(lines, line, lines.number), lines.number
            lines.taken.clear()

    def _object(self, lines: Lines, text: str, line: int) -> dict[str, Any] | RejectedRow:
        try:
            return json_object(text)
        except InvalidValueError as error:
            return RejectedRow(line, str(error), self._text_of(lines))

    def _rejected_objects(self, lines: Lines) -> Iterator[tuple[dict[str, Any] | RejectedRow, int]]:
        def read(cells: list[str], line: int) -> Any:  # noqa: ANN401 (not a Row yet)
            return json_object(plain(cells[2])), line

        for item in self._csv_rows(lines, read):
            if isinstance(item, RejectedRow):
                yield item, item.line
            else:
                yield item  # type: ignore[misc]

    def _json_rows(
        self, objects: Callable[[Lines], Iterator[tuple[dict[str, Any] | RejectedRow, int]]]
    ) -> Iterator[Row | RejectedRow]:
        read = _JsonReader(self.layout, self._words)
        lines = self._lines
        for value, line in objects(lines):
            if isinstance(value, RejectedRow):
                yield value
                continue
            try:
                row = self._checked(read(value, line))
            except InvalidValueError as error:
                yield RejectedRow(line, str(error), self._text_of(lines))
            else:
                yield row


#: Keys of our own export that need no inspection.
_OWN_UNSEEN = frozenset(export_format.COLUMNS) - {"status", "topics"}


def unanswered(questions: Sequence[Question], place: str) -> UserError:
    """The error for a file that cannot be imported before its questions are answered."""
    if len(questions) == 1:
        return UserError(questions[0].message, place=place, hint=questions[0].answer)
    shown = [f"{one.message}\n  {one.answer}" for one in questions[:20]]
    if len(questions) > 20:
        shown.append(f"and {len(questions) - 20} more")
    return UserError(
        f"{len(questions)} questions must be answered before this file can be imported:\n"
        + "\n".join(f"- {one}" for one in shown),
        place=place,
        hint="Answer them, or try --dry-run first.",
    )


def _raises(error: UserError) -> Iterator[Row | RejectedRow]:
    raise error
    yield  # a generator, so that the error is raised when the rows are read


def _is_address(text: str) -> bool:
    try:
        parse(text.strip().rpartition("<")[2].removesuffix(">"))
    except AddressError:
        return False
    return True


def _holds_address(cells: Iterable[str]) -> bool:
    return any("@" in cell and _is_address(cell) for cell in cells)


def _hint() -> str:
    return (
        f"The first line names the columns, and one of them is {EXPECTED}. "
        "In JSON Lines, each object has the key email."
    )


def _delimiter(sample: str) -> tuple[str, int]:
    """The separator of the cells, and the number of lines before the header."""
    first = sample.partition("\n")[0].strip()
    if len(first) == 5 and first.lower().startswith("sep="):  # written for Excel
        return first[4], 1

    def score(delimiter: str) -> tuple[bool, float, int]:
        rows: list[list[str]] = []
        # A row that the sample truncates, or that a wrong delimiter garbles, is skipped.
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
        return has_addresses([cell.strip() for cell in full[0]]), alike, width

    return max(_DELIMITERS, key=score), 0


def _uneven(cells: list[str], width: int) -> str | None:
    """The flaw of a row with another width than the header; extra empty cells are removed."""
    if len(cells) == width or not any(cells):
        return None
    if len(cells) > width and not any(cells[width:]):
        del cells[width:]
        return None
    return f"{len(cells)} cells, but the first line has {width}"


def _keys(sample: str) -> tuple[list[str], bool]:
    """The keys of the first objects, and whether they are our own export's."""
    keys: dict[str, None] = {}
    # Not splitlines(), which splits at more characters than a line feed.
    for number, line in enumerate(sample.split("\n")):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            if number == 0 and export_format.is_own(value):
                return list(value), True
            keys |= dict.fromkeys(value)
    return list(keys), False


class _JsonReader:
    """Reads JSON objects; typed values keep their types."""

    def __init__(self, layout: Layout, words: Mapping[str, str]) -> None:
        self._is_own = layout.kind == "newsletter"
        self._layout = layout
        self._roles: dict[str, tuple[str | None, str]] = {}
        for one in layout.columns:
            if len(one.path) == 1:
                self._roles[one.name] = one.role, one.key
        self._states = [
            (one, CellReader(one.role or "", one.order, words))
            for one in layout.states
            if not one.is_own
        ]
        self._orders = {one.role: one.order for one in layout.columns if one.has_dates}

    def __call__(self, value: dict[str, Any], line: int) -> Row:
        if self._is_own:
            if not export_format.is_own(value):
                raise InvalidValueError("some keys of our own export are missing")
            row = export_format.from_values(value, line, self._extra)
            return self._with_states(row, value)
        if export_format.is_own(value):  # after a first line that was too long for the sample
            row = export_format.from_values(value, line, self._extra)
            return self._with_states(row, value)
        return self._with_states(self._row(value, line), value)

    def _extra(self, key: str) -> str | None:
        role, attribute = self._meaning(key)
        return attribute if role is None or role.startswith("=") else None

    def _with_states(self, row: Row, value: dict[str, Any]) -> Row:
        if not self._states:
            return row
        said = []
        for column, reader in self._states:
            text = text_of(dig(value, column.path))
            try:
                said.append(reader(text))
            except UnknownWordError:
                raise unknown_word(column, text) from None
        status, at = strongest([(row.status, row.status_at), *said])
        return row._replace(status=status, status_at=at)

    def _row(self, value: dict[str, Any], line: int) -> Row:
        fields: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        for key, item in value.items():
            role, attribute = self._meaning(key)
            if role is None or role.startswith("="):
                attributes[attribute] = item
            elif item is not None:
                fields.setdefault(role, item)
        for role in fields.keys() & TEXTS:
            if not isinstance(fields[role], str):
                raise InvalidValueError(f"{role} must be a text")
        document = fields.get("attributes", {})
        if not isinstance(document, dict):
            raise InvalidValueError("attributes must be a JSON object")
        for role in ("first", "last"):
            if fields.get(role, "").strip():
                attributes.setdefault(f"{role}_name", fields[role])
        tags = texts(fields.get("tags", []))
        if tags:
            attributes["tags"] = list(tags)
        confirmed_at = self._moment(fields, "confirmed_at")
        return Row(
            line=line,
            email=fields.get("email", ""),
            name=checked_name(_name(fields)),
            attributes=document | attributes,
            language=language(fields.get("language", "")),
            timezone=timezone(fields.get("timezone", "")),
            topics=texts(fields.get("topics", [])),
            tags=tags,
            created_at=self._moment(fields, "created_at") or confirmed_at,
            confirmed_at=confirmed_at,
        )

    def _moment(self, fields: dict[str, Any], role: str) -> Any:  # noqa: ANN401 (a moment or None)
        value = fields.get(role, "")
        if role == "confirmed_at" and isinstance(value, bool):
            return None
        if not isinstance(value, str):
            raise InvalidValueError(f"{role} must be a text")
        order = self._orders.get(role)
        return certain(value, order) if role == "confirmed_at" else moment(value, order)

    def _meaning(self, key: str) -> tuple[str | None, str]:
        meaning = self._roles.get(key)
        if meaning is None:
            meaning = None, attribute_key(key)
            if len(self._roles) < 1000:  # keys are the file's: memory stays flat
                self._roles[key] = meaning
        return meaning


def _name(fields: dict[str, Any]) -> str:
    if fields.get("name"):
        return str(fields["name"])
    parts: Sequence[str] = [fields.get("first", "").strip(), fields.get("last", "").strip()]
    return " ".join(part for part in parts if part)
