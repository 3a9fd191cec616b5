"""What differs between two texts: line by line, and word by word where lines resemble each other.

A paragraph of Markdown is one long line, so that the words matter more than the lines.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from itertools import zip_longest

_CONTEXT = 2
#: Comparing takes time by the product of both lengths: beyond these, all of it is "changed".
_MOST_LINES, _MOST_WORDS = 4_000, 3_000
#: Below this likeness, marking words would leave a patchwork.
_ALIKE = 0.4
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Kind(StrEnum):
    """What became of a line."""

    SAME = "same"
    GONE = "gone"
    NEW = "new"
    #: Lines that are the same in both and are not shown.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a line, and whether it is what differs."""

    text: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line; ``number`` counts from 1 in the text that has it, or says how many are skipped."""

    kind: Kind
    pieces: tuple[Piece, ...]
    number: int


def compare(before: str, after: str) -> list[Line]:
    """The lines that differ, with two around them; empty when nothing does."""
    old, new = before.split("\n"), after.split("\n")
    lines: list[Line] = []
    blocks = _blocks(old, new)
    for at, (tag, i, i_end, j, j_end) in enumerate(blocks):
        if tag == "equal":
            lines += _around(new[j:j_end], j, first=at == 0, last=at == len(blocks) - 1)
        else:
            lines += _changed(old[i:i_end], i, new[j:j_end], j)
    return lines if len(blocks) > 1 or (blocks and blocks[0][0] != "equal") else []


def _blocks(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """What difflib finds, between what both have in common at their ends."""
    shortest = min(len(old), len(new))
    head = next((n for n in range(shortest) if old[n] != new[n]), shortest)
    left = shortest - head
    tail = next((n for n in range(left) if old[-1 - n] != new[-1 - n]), left)
    a, b = old[head : len(old) - tail], new[head : len(new) - tail]
    found: list[tuple[str, int, int, int, int]] = [("equal", 0, head, 0, head)] if head else []
    if len(a) > _MOST_LINES or len(b) > _MOST_LINES:
        found.append(("replace", head, head + len(a), head, head + len(b)))
    else:
        inner = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
        found += [(tag, i + head, k + head, j + head, m + head) for tag, i, k, j, m in inner]
    if tail:
        found.append(("equal", len(old) - tail, len(old), len(new) - tail, len(new)))
    return found


def _around(lines: Sequence[str], start: int, *, first: bool, last: bool) -> Iterator[Line]:
    """The context of what differs, and how many lines are left out in between."""
    above = 0 if first else min(_CONTEXT, len(lines))
    below = 0 if last else min(_CONTEXT, len(lines) - above)
    skipped = len(lines) - above - below
    for number, text in enumerate(lines[:above], start + 1):
        yield Line(Kind.SAME, (Piece(text),), number)
    if skipped:
        yield Line(Kind.SKIPPED, (), skipped)
    for number, text in enumerate(lines[len(lines) - below :], start + len(lines) - below + 1):
        yield Line(Kind.SAME, (Piece(text),), number)


def _changed(
    old: Sequence[str], old_start: int, new: Sequence[str], new_start: int
) -> Iterator[Line]:
    """Lines that are gone, then those that came in their place."""
    pairs = [
        _words(was, is_) if was is not None and is_ is not None else (_whole(was), _whole(is_))
        for was, is_ in zip_longest(old, new)
    ]
    for number, (pieces, _) in enumerate(pairs[: len(old)], old_start + 1):
        yield Line(Kind.GONE, pieces, number)
    for number, (_, pieces) in enumerate(pairs[: len(new)], new_start + 1):
        yield Line(Kind.NEW, pieces, number)


def _words(was: str, is_: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    a, b = _WORD.findall(was), _WORD.findall(is_)
    if len(a) > _MOST_WORDS or len(b) > _MOST_WORDS or _likeness(a, b) < _ALIKE:
        return _whole(was), _whole(is_)
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    gone, new = [], []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        gone.append(Piece("".join(a[i:i_end]), tag != "equal"))
        new.append(Piece("".join(b[j:j_end]), tag != "equal"))
    return tuple(p for p in gone if p.text), tuple(p for p in new if p.text)


def _likeness(a: Sequence[str], b: Sequence[str]) -> float:
    """The share of words in common, in whatever order; blanks are no words."""
    was, is_ = ([word for word in words if not word.isspace()] for words in (a, b))
    return SequenceMatcher(None, was, is_, autojunk=False).quick_ratio()


def _whole(text: str | None) -> tuple[Piece, ...]:
    return (Piece(text),) if text else ()
