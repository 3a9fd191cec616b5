"""Checks that every word of an issue's Markdown is in the rendered email.

The check is independent of the Markdown parser. It extracts words from the Markdown with its own
patterns, and looks for the same number of each in the result. So it detects a parser that drops
text and a template that shows only a part. It skips words that it cannot identify safely, so
that it never refuses an issue for a word that is there.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from typing import Final

#: A run of letters and digits; Markdown syntax separates words.
_WORD: Final = re.compile(r"[^\W_]+")
#: Replaces a letter that was written as ``&…;``; no text may contain it.
_LETTER: Final = "\ufdd2"
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
#: ``[label]: https://… "title"``, which is not shown.
DEFINITION: Final = re.compile(
    r"^[ \t>+*-]*+\[(?P<label>(?:[^\[\]\\]|\\.){1,999}+)\]:[ \t]*+\n?[ \t>]*+"
    r"<?(?:https?:|mailto:|tel:)[^\s<>]*+>?"
    r"(?:[ \t]*+\n?[ \t>]*+(?:\"[^\"]{0,999}+\"|'[^']{0,999}+'|\([^()]{0,999}+\))[ \t]*+$)?",
    re.MULTILINE | re.IGNORECASE | re.DOTALL,
)
_LABEL: Final = re.compile(r"(?<=\]\[)(?:[^\[\]\\]|\\.){1,999}+(?=\])", re.DOTALL)
#: Where the address of a link begins.
_DESTINATION: Final = re.compile(r"\]\(\s*+(?P<angle><?)(?=https?:|mailto:|tel:)", re.IGNORECASE)
_TITLE: Final = re.compile(
    r"\s++(?P<title>\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|\((?:[^()\\]|\\.)*+\))\s*+\)",
    re.DOTALL,
)
_AUTOLINK: Final = re.compile(r"<(?:https?|mailto|tel):[^\s<>]*+>", re.IGNORECASE)
#: ``{width=512}`` after an image.
_SIZES: Final = re.compile(r"(?<=[)\]])(?:\{[^{}]{0,300}+\})++")
#: ``- [x]``, which is shown as a box.
_TASK: Final = re.compile(r"(?:[-+*]|\d{1,9}[.)])[ \t]++\[[xX]\](?=[ \t\n])")
#: The text part has the mailbox alone.
_MAILTO: Final = re.compile(r"(?<![^\W_])mailto:(?=[^\s<>])", re.IGNORECASE)
#: ``[^label]``, of which a number is shown.
_FOOTNOTE: Final = re.compile(r"\[\^[^\[\]\s]{1,200}+\]")
#: Quotes, bullets, numbers and definitions at the start of a line; rendering numbers lists itself.
_MARKERS: Final = re.compile(r"^(?:[ \t>]++|(?:[-+*:~]|\d{1,9}[.)])(?=[ \t\n]|$))++", re.MULTILINE)
#: The language of a code block.
_LANGUAGE: Final = re.compile(r"(?<=```|~~~)[ \t]*+[^\s`]++")
#: Most characters to search for words that are joined to others.
_MOST_SEARCHED: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Word:
    """A word in case-folded form, and its line."""

    text: str
    line: int
    #: Whether the text part has it too; it has no titles of links.
    is_in_text: bool = True


@dataclass(frozen=True, slots=True)
class MissingWord:
    """The first missing word, and how many other words are missing."""

    word: Word
    others: int


def words_of(markdown: str, *, line: int, marks: str) -> list[Word]:
    """The words that this Markdown shows; ``line`` is the number of its first line.

    ``marks`` is a pattern of the marks for personal values.
    """
    # A value may be within an address, too.
    markdown = re.sub(marks, lambda one: "_" * len(one[0]), markdown)
    labels = {folded(found["label"]) for found in DEFINITION.finditer(markdown)}
    text = _LANGUAGE.sub(_blank, DEFINITION.sub(_blank, markdown))
    text = _LABEL.sub(lambda one: _blank(one) if folded(one[0]) in labels else one[0], text)
    text = _FOOTNOTE.sub(_blank, _TASK.sub(_blank, _SIZES.sub(_blank, text)))
    text = _MARKERS.sub(_blank, text)
    text, titles = _without_addresses(_AUTOLINK.sub(_blank, text))
    text = _MAILTO.sub(_blank, text)
    breaks = [at for at, letter in enumerate(markdown) if letter == "\n"]
    return [
        Word(word.casefold(), line + bisect_right(breaks, at), is_in_text)
        for part, is_in_text in ((text, True), (titles, False))
        for word, at in _words(_ENTITY.sub(_decoded, part))
    ]


def first_missing(words: Sequence[Word], html: str, text: str) -> MissingWord | None:
    """The first word that is too seldom in this HTML or text; None when all are there."""
    parts = _seen(html)
    return _missing(words, parts) or _missing([one for one in words if one.is_in_text], [text])


def words_in(html: str) -> list[Word]:
    """The words of this HTML, without line numbers."""
    return [Word(one.casefold(), 0) for part in _seen(html) for one in _WORD.findall(part)]


def _missing(words: Sequence[Word], parts: Sequence[str]) -> MissingWord | None:
    there = Counter(one.casefold() for part in parts for one in _WORD.findall(part))
    wanted = Counter(one.text for one in words)
    fewer = [word for word, number in wanted.items() if there[word] < number]
    # Words on both sides of a link or an entity may be joined in the result.
    together = "".join(parts).casefold()
    if len(fewer) * len(together) <= _MOST_SEARCHED:
        fewer = [word for word in fewer if together.count(word) < wanted[word]]
    if not fewer:
        return None
    # Prefer a word that is not there at all: for others the missing occurrence is unknown.
    first = min(fewer, key=lambda word: there[word] > 0)
    left = there[first]
    for one in words:
        if one.text == first:
            if not left:
                return MissingWord(one, len(fewer) - 1)
            left -= 1
    return None


def _words(text: str) -> Iterable[tuple[str, int]]:
    """The words, except those next to a letter that was written as an entity."""
    for found in _WORD.finditer(text):
        around = (
            text[max(0, found.start() - 1) : found.start()] + text[found.end() : found.end() + 1]
        )
        if _LETTER not in around:
            yield found[0], found.start()


def _without_addresses(text: str) -> tuple[str, str]:
    """The text without addresses and titles of links, and the titles alone, at their positions."""
    parts, titles, end = [], [], 0
    for found in _DESTINATION.finditer(text):
        if found.start() < end:
            continue
        stop = _end_of_address(text, found.end(), in_angles=bool(found["angle"]))
        title = _TITLE.match(text, stop)
        after = title.end() if title else stop
        parts += [text[end : found.start()], _bare(text[found.start() : after])]
        titles.append(_bare(text[end : title.start("title") if title else after]))
        if title:
            titles += [title["title"], _bare(text[title.end("title") : after])]
        end = after
    titles.append(_bare(text[end:]))
    return "".join((*parts, text[end:])), "".join(titles)


def _end_of_address(text: str, at: int, *, in_angles: bool) -> int:
    depth = 0
    while at < len(text) and text[at] not in "<>\n":
        letter = text[at]
        if letter == "\\":
            at += 1
        elif not in_angles and (letter.isspace() or (letter == ")" and not depth)):
            return at
        depth += (letter == "(") - (letter == ")")
        at += 1
    return min(len(text), at + in_angles)


def folded(label: str) -> str:
    """A label in the form in which labels are compared: ignoring letter case and whitespace."""
    return " ".join(label.casefold().split())


def _decoded(entity: re.Match[str]) -> str:
    """Spaces for an entity of a sign, marks for one of a letter; other text stays."""
    made = unescape(entity[0])
    if made == entity[0]:
        return entity[0]
    return (_LETTER if any(letter.isalnum() for letter in made) else " ") * len(entity[0])


def _blank(found: re.Match[str]) -> str:
    return _bare(found[0])


def _bare(text: str) -> str:
    """Spaces of the same length, with the same line breaks."""
    return re.sub(r"[^\n]", " ", text)


def _seen(html: str) -> list[str]:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.parts


class _Reader(HTMLParser):
    """Collects the visible text of a page, and the texts of images and links."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self._unseen += tag in {"head", "style"}
        self.parts += [value for name, value in attrs if name in {"alt", "title"} and value]

    def handle_endtag(self, tag: str) -> None:
        """An element ends."""
        self._unseen -= tag in {"head", "style"}

    def handle_data(self, data: str) -> None:
        """Text."""
        if not self._unseen:
            self.parts.append(data)
