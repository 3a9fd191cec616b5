"""The front matter of an issue file: YAML whose values stay the text that the author wrote.

YAML 1.1 makes a boolean of ``no``, a number of ``1e3``, a day of ``2026-11-29`` and cuts a
value at `` #``. An author who writes a subject means its words. So no value is resolved
here: what is read is text, or a list of texts, and whatever would change or hide words
(comments behind a value, anchors, tags, further documents) is refused with its line.
The events of the parser are read one by one, so that no nesting or repetition grows.
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
#: PyYAML takes a millisecond for each of many that are open at once.
_MOST_BRACKETS: Final = 200
#: YAML ends lines at these, editors do not: what follows would be a line of its own.
_STRANGE_BREAK: Final = re.compile("[\x85\u2028\u2029]")
_LINE_BREAK: Final = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
#: Plain words that YAML reads as nothing, and that no reader should get as a word.
_NOTHING: Final = frozenset({"~", "null", "Null", "NULL"})
_QUOTE: Final = 'Put the value into quotes, e.g. subject: "Scale: {{ name }}, our news"'
_SURROGATES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@dataclass(frozen=True, slots=True)
class YamlValue:
    """What stands behind a key, and the line in the file where it begins."""

    #: None for a list or a table.
    text: str | None
    line: int
    #: Whether it was written without quotation marks.
    is_plain: bool = False
    #: The parts of a list; None where it is none.
    items: tuple["YamlValue", ...] | None = None
    #: The keys and values of a table; None where it is none.
    pairs: tuple[tuple["YamlValue", "YamlValue"], ...] | None = None
    #: Where it ends in the front matter.
    end: int = 0


def read_front_matter(text: str, *, name: str, keys: Mapping[str, bool]) -> dict[str, YamlValue]:
    """The values by their keys; ``text`` is what stands between the lines of ``---``.

    ``keys`` are the keys that there are, each with whether its value is text of the author's
    own, of which nothing may be lost. Raises IssueError with ``name`` and the line in the file.
    """
    return _Reader(text, name, keys).values()


class _Reader:
    def __init__(self, text: str, name: str, keys: Mapping[str, bool]) -> None:
        self._text, self._name, self._keys = text, name, keys
        #: The key whose value is being read.
        self._key = "this"

    def values(self) -> dict[str, YamlValue]:
        """Read the whole of it."""
        if len(self._text) > _MOST_CHARACTERS:
            self._refuse(
                f"the front matter has {len(self._text):,} characters",
                f"At most {_MOST_CHARACTERS:,} are allowed. Words for readers stand below it.",
                2,
            )
        if self._text.count("[") + self._text.count("{") > _MOST_BRACKETS:
            self._refuse("the front matter has too many brackets", self._allowed(), 2)
        if strange := _STRANGE_BREAK.search(self._text):
            self._refuse(
                f"the front matter has a line break of another kind (U+{ord(strange[0]):04X})",
                "Remove it; it may have come with pasted text.",
                self._line_at(strange.start()),
            )
        try:
            return self._read(self._events())
        except yaml.MarkedYAMLError as error:
            # Of a quotation mark that nothing closes, the place where it opens helps.
            unclosed = "quoted scalar" in (error.context or "") and error.context_mark
            mark = unclosed or error.problem_mark or error.context_mark
            line = min(mark.line + 2, self._text.count("\n") + 2) if mark else 2
            problem = error.problem or error.context or "malformed"
            if unclosed:
                problem = "a quotation mark opens here, and none closes it"
            self._not_yaml(problem, line)
        except yaml.reader.ReaderError as error:
            self._not_yaml(error.reason, self._line_at(error.position))

    def _events(self) -> Iterator[yaml.Event]:
        """What the parser meets; refuses what makes something else of the text."""
        documents = 0
        for event in yaml.parse(self._text, Loader=yaml.BaseLoader):
            line, key = _line_of(event), self._key
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1 or event.explicit:
                    hint = "Front matter ends at the line ---; remove other ---, ... and %."
                    self._refuse("a second document begins here", hint, line)
            if isinstance(event, yaml.AliasEvent):
                said = f"{key} is text, and YAML takes *{event.anchor} for a reference"
                self._refuse(said, _QUOTE, line)
            if isinstance(event, yaml.NodeEvent) and event.anchor:
                said = f"{key} is text, and YAML takes &{event.anchor} for a mark and drops it"
                self._refuse(said, _QUOTE, line)
            if tag := getattr(event, "tag", None):
                said = f"{key} is text, and YAML takes {tag} for a type and drops it"
                self._refuse(said, _QUOTE, line)
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
                self._refuse(f"{key.value} stands here a second time", "Keep one.", line)
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
        """Refuse text of which YAML has dropped something, or that it cannot hold."""
        if value.text is None:
            hint = f'Write {key}: "some words", in quotes if it begins with [.'
            self._refuse(f"{key} is text, not a list or a table", hint, value.line)
        rest = self._text[value.end :].split("\n", 1)[0]
        if value.is_plain and "#" in rest:
            self._refuse(
                f"{key} ends before the #: YAML takes “{rest.strip()[:60]}” for a comment",
                f'Put the value into quotes: {key}: "{(value.text + rest).strip()[:80]}". '
                "A comment stands on a line of its own.",
                self._line_at(value.end),
            )
        if value.is_plain and value.text in _NOTHING:
            hint = f'Remove the line, or write {key}: "{value.text}" if the word is meant.'
            self._refuse(f"YAML takes {value.text} for nothing", hint, value.line)
        if _LINE_BREAK.search(value.text):
            self._refuse(f"{key} has a line break", "Write it on one line.", value.line)
        if "<!--" in value.text:
            hint = "Remove it; a note of your own stands on a line that begins with #."
            self._refuse(f"{key} has an HTML comment, which people would read", hint, value.line)
        for letter in value.text:
            if FORBIDDEN.match(letter) or (unicodedata.category(letter) == "Cc" and letter != "\t"):
                what = f"a character that no text may hold (U+{ord(letter):04X})"
                self._refuse(f"{key} has {what}", "Remove it.", value.line)

    def _not_yaml(self, problem: str, line: int) -> NoReturn:
        hint = _QUOTE
        if "'\\t'" in problem:
            problem, hint = "there is a tab", "Write blanks in its place, or quote the value."
        self._refuse(f"the front matter is not YAML: {problem}", hint, line)

    def _line_at(self, index: int) -> int:
        return self._text.count("\n", 0, index) + 2

    def _allowed(self) -> str:
        return f"Allowed: {', '.join(self._keys)}."

    def _refuse(self, message: str, hint: str, line: int) -> NoReturn:
        raise IssueError(message, place=f"{self._name}:{line}", hint=hint)


def _line_of(event: yaml.Event) -> int:
    """The line in the file: the front matter begins on its second one."""
    return event.start_mark.line + 2 if event.start_mark else 2


def _one_character(pair: re.Match[str]) -> str:
    """A character that is written as two halves, as JSON does it."""
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")
