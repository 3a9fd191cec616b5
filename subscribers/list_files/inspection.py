"""Inspects a whole file before its import: which columns may say that people left?

Column names are not enough. Cells are inspected in chunks of thousands, column by column and as
sets, so that a million rows cost little. What remains unclear becomes a ``Question`` with the
column, its words and their lines; nothing is guessed.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from newsletter.errors import UserError
from subscribers.field_values import InvalidValueError
from subscribers.list_files.cell_values import listed
from subscribers.list_files.column_mapping import Column, Layout, text_of
from subscribers.list_files.dates import ColumnOrder, is_date
from subscribers.list_files.row_status import UNDECIDED, UnknownWordError, read_state
from subscribers.list_files.status_words import (
    LEAVING_SPELLINGS,
    Hint,
    is_nothing,
    is_status_word,
    says_left,
    sense_of,
    state_of,
    yes_or_no,
)

#: Rows that are inspected together.
CHUNK = 5_000
#: A column with more different cells than this is free text.
_FEW = 200
_EXAMPLES = 5
#: Most different topics in a file.
MOST_TOPICS = 5_000
#: Most keys of nested objects that are inspected, and the deepest level.
_MOST_PATHS = 1_000
_DEEPEST = 4
#: Returns the first line with this cell.
First = Callable[[str], int]
#: A quick check whether a JSON cell may be about leaving, before it is parsed.
_SPEAKS = re.compile(
    r"sub|opt.?(?:in|out|ed)|bounc|complain|spam|black|block|suppress|consent|status|disabled"
    r"|clean|abonn|abge|abme|scri|baja|zgod|wypis|uitge|afge|confirm|active",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a file that only the operator can answer."""

    #: What it is about: ``email``, ``column``, ``word``, ``date``, ``topic`` or ``file``.
    kind: str
    #: The name of that column, word, topic or file.
    about: str
    message: str
    #: How to answer it on the command line.
    answer: str
    examples: tuple[str, ...] = ()
    #: The first line that it concerns; 0 for the whole file.
    line: int = 0


@dataclass(slots=True)
class _ColumnSummary:
    """What is stored of a column's cells, in little memory."""

    column: Column
    #: Different non-empty cells with their first lines, as long as they are few.
    few: dict[str, int] = field(default_factory=dict)
    is_many: bool = False
    #: Whether any object has this key.
    is_met: bool = False
    #: Cells that say that somebody left, in a column about something else.
    leaving: dict[str, int] = field(default_factory=dict)
    #: Unknown words of a status column.
    unknown: dict[str, int] = field(default_factory=dict)
    order: ColumnOrder = field(default_factory=ColumnOrder)
    #: Topics or tags.
    labels: dict[str, int] = field(default_factory=dict)


class Inspection:
    """Collects the cells of a file column by column; ``questions`` evaluates them in the end."""

    def __init__(self, layout: Layout, chosen: Mapping[str, str], order: str | None) -> None:
        self._layout = layout
        self._chosen = chosen
        self._order = order
        self._seen: dict[tuple[str, ...], _ColumnSummary] = {}
        for column in layout.columns:
            self._seen[self._key(column)] = _ColumnSummary(column)
        self._by_place = [
            _ColumnSummary(one) for one in layout.columns if one.place >= 0 and len(one.path) == 1
        ]
        for seen in self._by_place:
            self._seen[self._key(seen.column)] = seen
        #: Words of topic columns with their first lines.
        self.topics: dict[str, int] = {}

    def _key(self, column: Column) -> tuple[str, ...]:
        """Two CSV columns may have the same name; a key of an object is unique."""
        if self._layout.is_json or len(column.path) > 1:
            return column.path
        return str(column.place), column.name

    # CSV.

    @property
    def is_needed(self) -> bool:
        """Whether any column needs inspection."""
        return any(self._watches(one) for one in self._seen.values())

    def see_rows(self, rows: Sequence[list[str]], lines: Sequence[int]) -> None:
        """Inspect rows of cells, all of the same width."""
        if not rows:
            return
        for seen, cells in zip(self._by_place, zip(*rows, strict=True), strict=True):
            if self._watches(seen):
                self._see(seen, cells, lines)
            if seen.column.role == "attributes" and not seen.column.is_own:
                self._see_documents(seen.column.name, cells, lines)

    def _see_documents(self, name: str, cells: Sequence[str], lines: Sequence[int]) -> None:
        found: dict[tuple[str, ...], tuple[list[str], list[int]]] = {}
        for text, line in zip(cells, lines, strict=True):
            if not _SPEAKS.search(text):
                continue
            try:
                value = orjson.loads(text)
            except orjson.JSONDecodeError:
                continue  # the row is rejected later, with the reason
            for path, inner in _leaves(value, (name,)):
                texts, at = found.setdefault(path, ([], []))
                texts.append(inner)
                at.append(line)
        self._see_paths(found)

    # JSON Lines.

    def see_objects(self, objects: Sequence[tuple[dict[str, Any], int]]) -> None:
        """Inspect objects, each with its line."""
        found: dict[tuple[str, ...], tuple[list[str], list[int]]] = {}
        for value, line in objects:
            for path, text in _leaves(value, ()):
                texts, lines = found.setdefault(path, ([], []))
                texts.append(text)
                lines.append(line)
        self._see_paths(found)

    def _see_paths(
        self, found: Mapping[tuple[str, ...], tuple[Sequence[str], Sequence[int]]]
    ) -> None:
        for path, (texts, lines) in found.items():
            seen = self._seen.get(path)
            if seen is None:
                if len(self._seen) >= _MOST_PATHS and not any(map(says_left, texts)):
                    continue
                seen = self._seen[path] = _ColumnSummary(self._column(path))
            seen.is_met = True
            if self._watches(seen):
                self._see(seen, texts, lines)

    def _column(self, path: tuple[str, ...]) -> Column:
        """A key of a nested object, or one that is missing in the first objects."""
        place = next((n for n, one in enumerate(self._layout.columns) if one.name == path[0]), -1)
        column = Column(".".join(path), place, path)
        if (sense := sense_of(path[-1])) is not None:
            column.hint, column.role = sense.hint, sense.role
        return column

    # Any file.

    @staticmethod
    def _watches(seen: _ColumnSummary) -> bool:
        column = seen.column
        return column.is_searched or column.is_state or column.has_dates or column.role == "topics"

    def _see(self, seen: _ColumnSummary, cells: Sequence[str], lines: Sequence[int]) -> None:
        column, distinct = seen.column, set(cells)

        def first(text: str) -> int:
            return lines[cells.index(text)]

        if column.has_dates:
            for text in distinct:
                if "/" in text or text[1:2] == "-" or text[2:3] == "-":
                    seen.order.see(text, first(text))
        if column.role in {"topics", "tags"}:
            self._see_labels(seen, distinct, first)
        elif column.is_state:
            self._see_states(seen, distinct, first)
        elif column.is_searched:
            _see_words(seen, distinct, first)

    def _see_labels(self, seen: _ColumnSummary, distinct: Iterable[str], first: First) -> None:
        for text in distinct:
            try:
                labels = listed(text)
            except InvalidValueError:
                continue
            for label in labels:
                if seen.column.role == "topics" and len(self.topics) < MOST_TOPICS:
                    self.topics.setdefault(label, first(text))
                if says_left(label) and not seen.column.is_chosen and len(seen.leaving) < _FEW:
                    seen.leaving.setdefault(label, first(text))

    def _see_states(self, seen: _ColumnSummary, distinct: Iterable[str], first: First) -> None:
        assert seen.column.role is not None
        for text in distinct:
            try:
                read_state(seen.column.role, text, self._order, self._chosen)
            except UnknownWordError:
                if len(seen.unknown) < _FEW:
                    seen.unknown.setdefault(text, first(text))

    def questions(self) -> list[Question]:
        """The open questions; afterwards each column has its final role."""
        asked: list[Question] = []
        for seen in list(self._seen.values()):
            asked += self._about(seen)
        known = {id(one) for one in self._layout.columns}
        for seen in self._seen.values():
            column = seen.column
            # Keys of nested objects are not columns, unless they say who may be emailed.
            if id(column) not in known and column.is_state:
                self._layout.columns.append(column)
            if column.is_chosen and column.place < 0 and not seen.is_met:
                raise UserError("no object in the file has this key", place=column.name)
        self._layout.name_attributes()
        return asked

    def _about(self, seen: _ColumnSummary) -> list[Question]:
        column = seen.column
        if column.is_searched:
            self._settle(seen)
        if column.role == UNDECIDED:
            return [_column_question(seen)]
        asked = []
        if column.is_state and seen.unknown:
            if (
                column.hint is Hint.MEANS
                and column.role != "status"
                and len(seen.unknown) > _EXAMPLES
            ):
                # Too many words for a yes-or-no column: the name may mean something else.
                column.role = UNDECIDED
                return [_column_question(seen)]
            asked = [_word_question(column, word, line) for word, line in seen.unknown.items()]
        if column.has_dates:
            asked += self._date(seen)
        return asked

    def _settle(self, seen: _ColumnSummary) -> None:
        """Decide the role of a column whose name alone is not clear."""
        column, words = seen.column, list(seen.few)
        if column.role in {"tags", "topics"}:
            column.role = UNDECIDED if seen.leaving else column.role
        elif column.hint is Hint.ASK:
            column.role = UNDECIDED if words or seen.is_many else None
        elif seen.leaving or any(map(is_status_word if column.hint else says_left, words)):
            # A status column by its cells, if all of them are known.
            knows_all = not seen.leaving and all(map(state_of, words))
            column.role = "status" if knows_all else UNDECIDED
            seen.few |= seen.leaving
        elif column.hint is Hint.MAYBE and words and not seen.is_many:
            column.role = UNDECIDED if _may_tell(words) else column.role

    def _date(self, seen: _ColumnSummary) -> list[Question]:
        found = seen.order
        if self._order:
            seen.column.order = self._order
            return []
        seen.column.order = found.order
        if found.order or not (found.unclear or found.day_first):
            return []
        lines = [one for one in (found.day_first, found.month_first, found.unclear) if one][:2]
        shown = " and ".join(f"“{text.strip()[:40]}” on line {line}" for line, text in lines)
        why = "contradict each other" if found.day_first else "are ambiguous"
        return [
            Question(
                "date",
                seen.column.name,
                f"dates in the column “{_short(seen.column.name)}” {why}: {shown}",
                "Say how they are written: --dates dmy (day first) or --dates mdy (month first).",
                tuple(text for _, text in lines),
                lines[0][0],
            )
        ]


def _may_tell(words: Sequence[str]) -> bool:
    """Whether these look like statuses, yes and no, or dates of events."""
    if all(map(state_of, words)):
        return not all(word.isdecimal() for word in words)
    return all(yes_or_no(word) is not None for word in words) or all(map(is_date, words))


def _see_words(seen: _ColumnSummary, distinct: set[str], first: First) -> None:
    """Store a column's words as long as they are few, then only those about leaving."""
    if seen.is_many:
        for text in distinct & LEAVING_SPELLINGS:
            seen.leaving.setdefault(text, first(text))
        return
    for text in distinct:
        if text not in seen.few and not is_nothing(text):
            seen.few[text] = first(text)
    if len(seen.few) > _FEW:
        seen.is_many = True
        seen.leaving = {text: line for text, line in seen.few.items() if text in LEAVING_SPELLINGS}
        seen.few.clear()


def _leaves(
    value: object, path: tuple[str, ...], depth: int = 0
) -> Iterable[tuple[tuple[str, ...], str]]:
    """The values of an object with their paths, as text like in CSV cells."""
    if isinstance(value, dict) and depth < _DEEPEST:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)), depth + 1)
    elif path:
        if isinstance(value, list):
            yield path, orjson.dumps(value).decode() if value else ""
        else:
            yield path, text_of(value)


def _column_question(seen: _ColumnSummary) -> Question:
    name = seen.column.name
    words = list(seen.few or seen.unknown or seen.leaving)[:_EXAMPLES]
    line = min((seen.few | seen.unknown | seen.leaving).values(), default=0)
    shown = ", ".join(f"“{_short(word)}”" for word in words) or "many different words"
    return Question(
        "column",
        name,
        f"the column “{_short(name)}” may say who left or may be emailed: {shown} (line {line})",
        f'Say what it means: --map "{name}=unsubscribed" (or status, consent, bounced, '
        f'complained, suppressed, attribute), or leave it out: --ignore-column "{name}"',
        tuple(words),
        line,
    )


def _word_question(column: Column, word: str, line: int) -> Question:
    shown = _short(word.strip())
    return Question(
        "word",
        word.strip(),
        f"“{shown}” on line {line} of the column “{_short(column.name)}” is unknown: "
        "may these people be emailed?",
        f'Say what it means: --value "{shown}=unsubscribed" (or subscribed, unconfirmed, bounced, '
        f'complained, suppressed), or what the column does: --map "{column.name}=attribute"',
        (word.strip(),),
        line,
    )


def _short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "�" for c in text[:60])
    return f"{shown}…" if len(text) > 60 else shown
