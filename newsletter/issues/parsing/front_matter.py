"""Reads the front matter of an issue file: YAML whose values stay the text that was written.

YAML 1.1 turns ``no`` into a boolean, ``1e3`` into a number and ``2026-11-29`` into a date, and
cuts a value at `` #``. The author of a subject means text. So this reader resolves no value: it
returns texts, lists of texts and tables of texts, and refuses everything that would change or hide
text (comments after a value, anchors, tags, further documents) with its line. It reads the
parser's events one by one, so nested or repeated structures cannot grow.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

import yaml

from newsletter.errors import IssueError
from newsletter.issues.parsing.text import FORBIDDEN

#: Twelve short keys need far less.
_MOST_CHARACTERS: Final = 20_000
#: PyYAML takes a millisecond for each of many open brackets.
_MOST_BRACKETS: Final = 200
#: YAML ends lines at these characters, editors do not.
_STRANGE_BREAK: Final = re.compile("[\x85\u2028\u2029]")
_LINE_BREAK: Final = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
#: Plain scalars that YAML reads as null.
NULLS: Final = frozenset({"~", "null", "Null", "NULL"})
_QUOTE: Final = 'Put the value into quotes, e.g. subject: "Scale: {{ name }}, our news"'
_SURROGATES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@dataclass(frozen=True, slots=True)
class YamlValue:
    """The value of a key, and the line in the file where it begins."""

    #: None for a list or a table.
    text: str | None
    line: int
    #: Whether it was written without quotation marks.
    is_plain: bool = False
    #: The items of a list; None for other values.
    items: tuple["YamlValue", ...] | None = None
    #: The keys and values of a table; None for other values.
    pairs: tuple[tuple["YamlValue", "YamlValue"], ...] | None = None
    #: The index in the front matter where it ends.
    end: int = 0


def read_front_matter(text: str, *, name: str, keys: Mapping[str, bool]) -> dict[str, YamlValue]:
    """The values by key; ``text`` is the text between the two lines of ``---``.

    ``keys`` maps each allowed key to whether its value is free text, which must be kept
    unchanged. Raises IssueError with ``name`` and the line in the file.
    """
    return _Reader(text, name, keys).values()


class _Reader:
    def __init__(self, text: str, name: str, keys: Mapping[str, bool]) -> None:
        self._text, self._name, self._keys = text, name, keys
        #: The key whose value is being read.
        self._key = "this"

    def values(self) -> dict[str, YamlValue]:
        """Read the whole front matter."""
        if len(self._text) > _MOST_CHARACTERS:
            self._refuse(
                f"the front matter has {len(self._text):,} characters",
                f"At most {_MOST_CHARACTERS:,} are allowed. Write text for readers below it.",
                2,
            )
        if self._text.count("[") + self._text.count("{") > _MOST_BRACKETS:
            self._refuse("the front matter has too many brackets", self._allowed(), 2)
        if strange := _STRANGE_BREAK.search(self._text):
            self._refuse(
                f"the front matter has a line break of another kind (U+{ord(strange[0]):04X})",
                "Remove it; it may come from pasted text.",
                self._line_at(strange.start()),
            )
        try:
            return self._read(self._events())
        except yaml.MarkedYAMLError as error:
            # For an unclosed quotation mark, name the line where it opens.
            unclosed = "quoted scalar" in (error.context or "") and error.context_mark
            mark = unclosed or error.problem_mark or error.context_mark
            line = min(mark.line + 2, self._text.count("\n") + 2) if mark else 2
            problem = error.problem or error.context or "malformed"
            if unclosed:
                problem = "the quotation mark that opens here is never closed"
            self._not_yaml(problem, line)
        except yaml.reader.ReaderError as error:
            self._not_yaml(error.reason, self._line_at(error.position))

    def _events(self) -> Iterator[yaml.Event]:
        """The parser's events; refuses those that would change the text."""
        documents = 0
        for event in yaml.parse(self._text, Loader=yaml.BaseLoader):
            line, key = _line_of(event), self._key
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1 or event.explicit:
                    hint = "Front matter ends at the line ---; remove other ---, ... and %."
                    self._refuse("a second document begins here", hint, line)
            if isinstance(event, yaml.AliasEvent):
                problem = f"{key} is text, but YAML reads *{event.anchor} as a reference"
                self._refuse(problem, _QUOTE, line)
            if isinstance(event, yaml.NodeEvent) and event.anchor:
                problem = f"{key} is text, but YAML reads &{event.anchor} as an anchor and drops it"
                self._refuse(problem, _QUOTE, line)
            if tag := getattr(event, "tag", None):
                problem = f"{key} is text, but YAML reads {tag} as a tag and drops it"
                self._refuse(problem, _QUOTE, line)
            yield event

    def _read(self, events: Iterator[yaml.Event]) -> dict[str, YamlValue]:
        found: dict[str, YamlValue] = {}
        next(events)  # the stream begins
        if isinstance(next(events), yaml.StreamEndEvent):
            return found  # nothing but comments
        first = next(events)
        if not isinstance(first, yaml.MappingStartEvent):
            self._refuse("expected lines like “subject: Our news”", self._allowed(), 2)
        for key in events:
            if isinstance(key, yaml.MappingEndEvent):
                break
            line = _line_of(key)
            if not isinstance(key, yaml.ScalarEvent) or key.value not in self._keys:
                what = f"“{key.value[:60]}”" if isinstance(key, yaml.ScalarEvent) else "this"
                self._refuse(f"{what} is not a key of an issue", self._allowed(), line)
            if key.value in found:
                self._refuse(f"{key.value} is here a second time", "Keep one.", line)
            self._key = key.value
            value = self._value(next(events), events)
            self._key = "this"
            if self._keys[key.value]:
                self._require_whole(key.value, value)
            found[key.value] = value
        for _ in events:
            pass  # to its end, where another document would be refused
        return found

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event]) -> YamlValue:
        line, end = _line_of(event), event.end_mark.index if event.end_mark else 0
        if isinstance(event, yaml.ScalarEvent):
            text = _SURROGATES.sub(_one_character, event.value)
            if event.style in {"|", ">"}:
                text = text.rstrip("\n")
            return YamlValue(text, line, is_plain=event.style is None, end=end)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[YamlValue] = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                if not isinstance(item, yaml.ScalarEvent):
                    what = "a topic's slug" if self._key == "topics" else "text"
                    self._refuse(f"this is not {what}", self._allowed(), _line_of(item))
                items.append(self._value(item, events))
            return YamlValue(None, line, items=tuple(items), end=end)
        if self._keys.get(self._key, True):
            self._not_yaml(f"{self._key} begins like a table", line)
        pairs: list[tuple[YamlValue, YamlValue]] = []
        while not isinstance(key := next(events), yaml.MappingEndEvent):
            both = key, next(events)
            if not all(isinstance(one, yaml.ScalarEvent) for one in both):
                self._not_yaml(f"{self._key} is a table in a table", _line_of(key))
            pairs.append((self._value(both[0], events), self._value(both[1], events)))
        return YamlValue(None, line, pairs=tuple(pairs), end=end)

    def _require_whole(self, key: str, value: YamlValue) -> None:
        """Refuse text from which YAML dropped something, and characters that are not allowed."""
        if value.text is None:
            hint = f'Write {key}: "some text", in quotes if it begins with [.'
            self._refuse(f"{key} is text, not a list or a table", hint, value.line)
        rest = self._text[value.end :].split("\n", 1)[0]
        if value.is_plain and "#" in rest:
            self._refuse(
                f"{key} ends before the #: YAML reads “{rest.strip()[:60]}” as a comment",
                f'Put the value into quotes: {key}: "{(value.text + rest).strip()[:80]}". '
                "Write a comment on its own line.",
                self._line_at(value.end),
            )
        if value.is_plain and value.text in NULLS:
            hint = f'Remove the line, or write {key}: "{value.text}" if you mean the word.'
            self._refuse(f"YAML reads {value.text} as no value", hint, value.line)
        if _LINE_BREAK.search(value.text):
            self._refuse(f"{key} has a line break", "Write it on one line.", value.line)
        if "<!--" in value.text:
            hint = "Remove it; write a note of your own on a line that begins with #."
            self._refuse(f"{key} has an HTML comment, which readers would see", hint, value.line)
        for letter in value.text:
            if FORBIDDEN.match(letter) or (unicodedata.category(letter) == "Cc" and letter != "\t"):
                what = f"a character that is not allowed (U+{ord(letter):04X})"
                self._refuse(f"{key} has {what}", "Remove it.", value.line)

    def _not_yaml(self, problem: str, line: int) -> NoReturn:
        hint = _QUOTE
        if "'\\t'" in problem:
            problem, hint = "there is a tab", "Replace it with spaces, or quote the value."
        self._refuse(f"the front matter is not YAML: {problem}", hint, line)

    def _line_at(self, index: int) -> int:
        return self._text.count("\n", 0, index) + 2

    def _allowed(self) -> str:
        return f"Allowed: {', '.join(self._keys)}."

    def _refuse(self, message: str, hint: str, line: int) -> NoReturn:
        raise IssueError(message, place=f"{self._name}:{line}", hint=hint)


def _line_of(event: yaml.Event) -> int:
    """The event's line in the file: the front matter begins on line 2."""
    return event.start_mark.line + 2 if event.start_mark else 2


def _one_character(pair: re.Match[str]) -> str:
    """The character of a surrogate pair, as JSON writes it."""
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")
