"""Compares two texts line by line, and word by word where lines are similar.

A paragraph of Markdown is one long line, so the words matter more than the lines. Comparing
texts that have little in common takes quadratic time and says little, so after a limited number
of steps the rest counts as changed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

_CONTEXT = 2
#: Steps for one pair of texts in all: some tenths of a second.
_MOST_STEPS = 400_000
#: Lines less similar than this are marked as a whole; marking their words would be unreadable.
_LEAST_SIMILARITY = 0.4
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class ChangeKind(StrEnum):
    """How a line changed."""

    SAME = "same"
    GONE = "gone"
    NEW = "new"
    #: Lines that are the same in both and are not shown.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class DiffPiece:
    """A part of a line, and whether it differs."""

    text: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a comparison.

    ``number`` is the line number, counted from 1, in the text that has it; for SKIPPED it is how
    many lines are skipped.
    """

    kind: ChangeKind
    pieces: tuple[DiffPiece, ...]
    number: int


@dataclass(slots=True)
class _Budget:
    """The steps left."""

    steps: int = _MOST_STEPS


def compare(before: str, after: str) -> list[DiffLine]:
    """The lines that differ, with two lines of context; empty for equal texts."""
    old, new = before.split("\n"), after.split("\n")
    lines: list[DiffLine] = []
    budget = _Budget()
    blocks = _blocks(old, new, budget)
    for at, (is_same, i, i_end, j, j_end) in enumerate(blocks):
        if is_same:
            lines += _around(new[j:j_end], j, first=at == 0, last=at == len(blocks) - 1)
        else:
            lines += _changed(old[i:i_end], i, new[j:j_end], j, budget)
    return lines if len(blocks) > 1 or (blocks and not blocks[0][0]) else []


#: Whether the lines are the same, then start and end in the first text and in the second.
_Block = tuple[bool, int, int, int, int]


def _blocks(a: Sequence[str], b: Sequence[str], budget: _Budget) -> list[_Block]:
    """Blocks that are the same in both texts, and the blocks between them, in order."""
    shortest = min(len(a), len(b))
    head = next((n for n in range(shortest) if a[n] != b[n]), shortest)
    left = shortest - head
    tail = next((n for n in range(left) if a[-1 - n] != b[-1 - n]), left)
    inner = _same(a[head : len(a) - tail], b[head : len(b) - tail], budget)
    pairs = [(0, 0, head), *((i + head, j + head, n) for i, j, n in inner)]
    pairs.append((len(a) - tail, len(b) - tail, tail))
    found: list[_Block] = []
    i = j = 0
    for i_same, j_same, number in pairs:
        if i < i_same or j < j_same:
            found.append((False, i, i_same, j, j_same))
        if number and found and found[-1][0]:
            found[-1] = (True, found[-1][1], i_same + number, found[-1][3], j_same + number)
        elif number:
            found.append((True, i_same, i_same + number, j_same, j_same + number))
        i, j = i_same + number, j_same + number
    return found


def _same(a: Sequence[str], b: Sequence[str], budget: _Budget) -> list[tuple[int, int, int]]:
    """Common blocks in order: (index in a, index in b, length).

    E. W. Myers, An O(ND) Difference Algorithm and Its Variations (1986): ``reach[k]`` is the
    furthest index in ``a`` on diagonal ``k`` (index in a minus index in b) with a number of edits.
    Empty when the budget runs out.
    """
    reach = {1: 0}
    trace: list[dict[int, int]] = []
    for edits in range(len(a) + len(b) + 1):
        before = dict(reach)
        trace.append(before)
        budget.steps -= edits  # what the copy costs
        for k in range(-edits, edits + 1, 2):
            is_down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
            x = begun = reach[k + 1] if is_down else reach[k - 1] + 1
            while x < len(a) and x - k < len(b) and a[x] == b[x - k]:
                x += 1
            reach[k] = x
            budget.steps -= 1 + x - begun
            if x >= len(a) and x - k >= len(b):
                return _traced(trace, len(a), len(b))
        if budget.steps < 0:
            return []
    return []


def _traced(trace: Sequence[dict[int, int]], x: int, y: int) -> list[tuple[int, int, int]]:
    """The common blocks on the path that ended at (x, y)."""
    found = []
    for edits in range(len(trace) - 1, -1, -1):
        reach, k = trace[edits], x - y
        is_down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
        at = k + 1 if is_down else k - 1
        from_x = reach[at] if edits else 0
        from_y = from_x - at if edits else 0
        begun = (from_x if is_down else from_x + 1) if edits else 0
        if x > begun:
            found.append((begun, begun - k, x - begun))
        x, y = from_x, from_y
    return found[::-1]


def _around(lines: Sequence[str], start: int, *, first: bool, last: bool) -> Iterator[DiffLine]:
    """The context lines of a common block, and how many lines between them are skipped."""
    above = 0 if first else min(_CONTEXT, len(lines))
    below = 0 if last else min(_CONTEXT, len(lines) - above)
    skipped = len(lines) - above - below
    for number, text in enumerate(lines[:above], start + 1):
        yield DiffLine(ChangeKind.SAME, (DiffPiece(text),), number)
    if skipped:
        yield DiffLine(ChangeKind.SKIPPED, (), skipped)
    for number, text in enumerate(lines[len(lines) - below :], start + len(lines) - below + 1):
        yield DiffLine(ChangeKind.SAME, (DiffPiece(text),), number)


def _changed(
    old: Sequence[str], old_start: int, new: Sequence[str], new_start: int, budget: _Budget
) -> Iterator[DiffLine]:
    """The removed lines, then the added ones."""
    pairs = [
        _words(was, is_, budget)
        if was is not None and is_ is not None
        else (_whole(was), _whole(is_))
        for was, is_ in zip_longest(old, new)
    ]
    for number, (pieces, _) in enumerate(pairs[: len(old)], old_start + 1):
        yield DiffLine(ChangeKind.GONE, pieces, number)
    for number, (_, pieces) in enumerate(pairs[: len(new)], new_start + 1):
        yield DiffLine(ChangeKind.NEW, pieces, number)


def _words(
    was: str, is_: str, budget: _Budget
) -> tuple[tuple[DiffPiece, ...], tuple[DiffPiece, ...]]:
    a, b = _WORD.findall(was), _WORD.findall(is_)
    if budget.steps < 0 or _similarity(a, b) < _LEAST_SIMILARITY:
        return _whole(was), _whole(is_)
    gone, new = [], []
    for is_same, i, i_end, j, j_end in _blocks(a, b, budget):
        gone.append(DiffPiece("".join(a[i:i_end]), not is_same))
        new.append(DiffPiece("".join(b[j:j_end]), not is_same))
    return tuple(p for p in gone if p.text), tuple(p for p in new if p.text)


def _similarity(a: Sequence[str], b: Sequence[str]) -> float:
    """The share of words in common, in any order; whitespace does not count."""
    was, is_ = (Counter(word for word in words if not word.isspace()) for words in (a, b))
    every = was.total() + is_.total()
    return 2 * (was & is_).total() / every if every else 1.0


def _whole(text: str | None) -> tuple[DiffPiece, ...]:
    return (DiffPiece(text),) if text else ()
