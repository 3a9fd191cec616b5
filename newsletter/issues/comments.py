"""HTML comments in an issue's Markdown: notes among editors, which no reader gets.

A comment goes from ``<!--`` to the next ``-->``, over as many lines as it likes. In code it is
text, as everything there, and so is ``\\<!--``. What is code depends on fences, lists and
quotes, so the lines are read as CommonMark 0.31 has it (sections 4.4, 4.5, 5.1, 5.2 and 6.1),
as far as code is concerned. What remains stands on as many lines as before, so that whatever
is said of it later names the right one.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from newsletter.errors import IssueError

_OPEN: Final = "<!--"
#: Comments that end where they begin (CommonMark 0.31, section 6.6).
_EMPTY: Final = ("<!-->", "<!--->")
_FENCE: Final = re.compile(r"(`{3,})(?=[^`]*$)|(~{3,})")
_BULLET: Final = re.compile(r"[-+*](?=[ \t]|$)")
_NUMBER: Final = re.compile(r"(\d{1,9})[.)](?=[ \t]|$)")
_RULE: Final = re.compile(r"(?:\*[ \t]*){3,}$|(?:-[ \t]*){3,}$|(?:_[ \t]*){3,}$")
_HEADING: Final = re.compile(r"#{1,6}(?=[ \t]|$)")
_UNDERLINE: Final = re.compile(r"(?:=+|-+)[ \t]*$")
#: What is not plain text in a paragraph.
_SIGN: Final = re.compile(r"\\.|`+|<!--", re.DOTALL)


def without_comments(body: str, *, name: str, line: int) -> str:
    """The body without its comments, on as many lines; ``line`` is its first in the file ``name``.

    Raises IssueError where a comment has no end.
    """
    return _Stripper(body, name, line).stripped() if _OPEN in body else body


@dataclass(slots=True)
class _Line:
    """A line being read: how far, and in which column that is (tabs go to multiples of four)."""

    text: str
    at: int = 0
    column: int = 0

    def indent(self) -> int:
        """The columns of blanks from here."""
        column = self.column
        for letter in self.text[self.at :]:
            if letter == "\t":
                column += 4 - column % 4
            elif letter == " ":
                column += 1
            else:
                break
        return column - self.column

    def take(self, columns: int) -> None:
        """Go over so many columns of blanks, or to their end."""
        goal = self.column + columns
        while self.column < goal and self.at < len(self.text) and self.text[self.at] in " \t":
            self.column += 4 - self.column % 4 if self.text[self.at] == "\t" else 1
            self.at += 1

    def skip(self, letters: int) -> None:
        """Go over letters that are no tabs."""
        self.at += letters
        self.column += letters

    @property
    def is_blank(self) -> bool:
        return not self.text[self.at :].strip(" \t")


#: A quote among what is open; a list's item stands there as the column of its text.
_QUOTE: Final = -1


@dataclass(slots=True)
class _Fence:
    sign: str
    length: int
    #: How many quotes and lists it stands in.
    depth: int


@dataclass(slots=True)
class _Stripper:
    body: str
    name: str
    first: int
    #: The lines as they are to be; those without comments stay.
    lines: list[str] = field(init=False)
    #: Where each line begins in the body.
    starts: list[int] = field(init=False)
    containers: list[int] = field(default_factory=list)
    fence: _Fence | None = None
    #: Whether the line above is of a paragraph, with which an indented line goes on.
    in_paragraph: bool = False
    #: Length of a run of backquotes → where there are such, in order.
    ticks: dict[int, list[int]] = field(default_factory=dict)
    #: Whether the line above is the first of an item, and has no words: it may be the only one.
    is_bare_item: bool = False
    #: Where code ends that goes on over the end of a line.
    code_until: int = 0
    #: Where code cannot go on: the beginnings of lines with which a paragraph is over.
    breaks: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.body.split("\n")
        self.starts = [0, *accumulate(len(line) + 1 for line in self.lines)]
        for run in re.finditer("`+", self.body):
            self.ticks.setdefault(len(run[0]), []).append(run.start())
        self.breaks = list(self._breaks())

    def stripped(self) -> str:
        """Read every line once; those with comments are written anew."""
        number, count = 0, len(self.lines)
        while number < count:
            number = self._step(number)
        return "\n".join(self.lines)

    def _breaks(self) -> Iterator[int]:
        is_over, depth = False, 0
        for number, text in enumerate(self.lines):
            rest = text.lstrip(" \t>")
            above, depth = depth, text.count(">", 0, len(text) - len(rest))
            if is_over or not rest or depth > above or _begins_block(rest):
                yield self.starts[number]
            is_over = bool(_UNDERLINE.match(rest) or _HEADING.match(rest))
        yield len(self.body)

    def _step(self, number: int) -> int:
        """Read a line, with comments that go on over further ones; returns the next to read."""
        line = _Line(self._raw(number))
        matched = self._go_in(line)
        if self.fence:
            if matched >= self.fence.depth:
                self._end_fence(line)
                return number + 1
            self.fence = None
        was_bare, self.is_bare_item = self.is_bare_item, False
        if line.is_blank:
            self.in_paragraph = False
            if was_bare:
                self.containers.pop()
            return number + 1
        if matched < len(self.containers) and not self._is_lazy(line):
            del self.containers[matched:]
            self.in_paragraph = False
        return self._read(number, line)

    def _read(self, number: int, line: _Line) -> int:
        """Read what a line has within its containers; returns the next line to read."""
        target = number
        head: str | None = None
        while True:
            is_item = self._open_containers(line)
            if line.is_blank:
                self.is_bare_item = is_item
                break
            if line.indent() >= 4 and not self.in_paragraph:
                break
            line.take(3)
            if self.in_paragraph or not line.text.startswith(_OPEN, line.at):
                return self._words(number, line, target, head)
            # Comments before anything else: what stands behind them comes in their place.
            head = line.text[: line.at] if head is None or is_item else head
            end = self._end_of_comments(self.starts[number] + line.at)
            last = bisect_right(self.starts, end) - 1
            if last > number and not is_item and target == number:
                self._blank(number, last)
                head, target = self._prefix(), last
            elif last > number:
                self._blank(number + 1, last + 1)
            number = last
            line = _Line(self._raw(last), end - self.starts[last], line.column)
            self.lines[target] = head + line.text[line.at :]
        return number + 1

    def _words(self, number: int, line: _Line, target: int, head: str | None) -> int:
        """Read a block's own first words, or the next line of a paragraph."""
        rest = line.text[line.at :]
        if opening := _FENCE.match(rest):
            sign = opening[1] or opening[2]
            self.fence = _Fence(sign[0], len(sign), len(self.containers))
            self.in_paragraph = False
            return number + 1
        is_underline = self.in_paragraph and _UNDERLINE.match(rest)
        is_over = is_underline or _HEADING.match(rest) or _RULE.match(rest)
        kept, last = self._inline(number, line.at)
        if kept is not None:
            self._blank(number, last + 1)
            self.lines[target] = (line.text[: line.at] if head is None else head) + kept
        is_left = kept is None or bool(kept.strip())
        self.in_paragraph = is_left and not is_over and last == number
        return last + 1

    def _inline(self, number: int, at: int) -> tuple[str | None, int]:
        """A line's words without comments, None where it has none; and the line where they end."""
        pieces: list[str] = []
        begun, last = self.starts[number] + at, number
        at = max(begun, self.code_until)
        while sign := _SIGN.search(self.body, at, max(at, self.starts[last + 1] - 1)):
            at = sign.end()
            if sign[0][0] == "`":
                at = self.code_until = self._end_of_code(sign)
            elif sign[0] == _OPEN:
                pieces.append(self.body[begun : sign.start()])
                begun = at = self._end_of_comment(sign.start())
                last = bisect_right(self.starts, at) - 1
        if not pieces:
            return None, number
        pieces.append(self.body[begun : self.starts[last + 1] - 1])
        return _joined(pieces), last

    def _go_in(self, line: _Line) -> int:
        """Go over what the open containers have at a line's beginning; returns how many have."""
        for number, container in enumerate(self.containers):
            if container == _QUOTE:
                if line.indent() > 3 or not line.text[line.at :].lstrip(" \t").startswith(">"):
                    return number
                self._quote(line)
            elif line.is_blank:
                continue
            elif line.column + line.indent() >= container:
                line.take(container - line.column)
            else:
                return number
        return len(self.containers)

    def _quote(self, line: _Line) -> None:
        line.take(3)
        line.skip(1)
        line.take(1)

    def _is_lazy(self, line: _Line) -> bool:
        """Whether a line goes on with a paragraph that stands deeper."""
        rest = line.text[line.at :].lstrip(" \t")
        is_block = line.indent() < 4 and bool(
            rest.startswith((">", _OPEN))
            or _begins_block(rest)
            # Only within the same quotes and items these may not end a paragraph.
            or _BULLET.match(rest)
            or _NUMBER.match(rest)
        )
        return self.in_paragraph and not is_block

    def _open_containers(self, line: _Line) -> bool:
        """Open the quotes and lists that begin on a line; returns whether the last is a list."""
        is_list = False
        while line.indent() < 4:
            rest = line.text[line.at :].lstrip(" \t")
            if rest.startswith(">"):
                self._quote(line)
                self.containers.append(_QUOTE)
                is_list = False
            elif not _RULE.match(rest) and (marker := self._marker(rest)):
                line.take(3)
                line.skip(len(marker))
                indent = line.indent()
                line.take(indent if indent <= 4 else 1)
                self.containers.append(line.column)
                is_list = True
            else:
                break
            self.in_paragraph = False
        return is_list

    def _marker(self, rest: str) -> str:
        """The mark of a list's item, if one begins here; below a paragraph not every one may."""
        if bullet := _BULLET.match(rest):
            is_empty = not rest[1:].strip(" \t")
            return "" if self.in_paragraph and is_empty else bullet[0]
        number = _NUMBER.match(rest)
        return number[0] if number and (not self.in_paragraph or number[1] == "1") else ""

    def _end_fence(self, line: _Line) -> None:
        """Close the fence if this line does."""
        fence, rest = self.fence, line.text[line.at :].strip(" \t")
        if fence and line.indent() < 4 and len(rest) >= fence.length and not rest.strip(fence.sign):
            self.fence = None

    def _end_of_code(self, opening: re.Match[str]) -> int:
        """Where code ends that may begin here: behind as many backquotes in the same paragraph."""
        length = len(opening[0])
        runs = self.ticks.get(length, [])
        at = bisect_left(runs, opening.end())
        limit = self.breaks[bisect_right(self.breaks, opening.start())]
        return runs[at] + length if at < len(runs) and runs[at] < limit else opening.end()

    def _end_of_comments(self, at: int) -> int:
        """Where one or more comments end, and the blanks between and behind them."""
        while self.body.startswith(_OPEN, at):
            at = self._end_of_comment(at)
            while self.body[at : at + 1] in {" ", "\t"}:
                at += 1
        return at

    def _end_of_comment(self, begins: int) -> int:
        for whole in _EMPTY:
            if self.body.startswith(whole, begins):
                return begins + len(whole)
        end = self.body.find("-->", begins + len(_OPEN))
        if end < 0:
            line = self.first + bisect_right(self.starts, begins) - 1
            raise IssueError(
                "this comment has no end",
                place=f"{self.name}:{line}",
                hint="Close it with -->. A <!-- that readers are to see is \\<!--.",
            )
        return end + len("-->")

    def _prefix(self) -> str:
        """What a line begins with that stands in the open containers."""
        prefix = ""
        for container in self.containers:
            prefix = prefix + "> " if container == _QUOTE else prefix.ljust(container)
        return prefix

    def _blank(self, first: int, end: int) -> None:
        for number in range(first, end):
            self.lines[number] = self._prefix().rstrip()

    def _raw(self, number: int) -> str:
        return self.body[self.starts[number] : self.starts[number + 1] - 1]


def _begins_block(rest: str) -> bool:
    """Whether a line can end the paragraph above it; ``rest`` begins with no blank."""
    number = _NUMBER.match(rest)
    return bool(
        _FENCE.match(rest)
        or _HEADING.match(rest)
        or _RULE.match(rest)
        or (_BULLET.match(rest) and rest[1:].strip(" \t"))
        or (number and number[1] == "1")
    )


def _joined(pieces: list[str]) -> str:
    """Words that stood around comments: one blank between them, and no comment made of them."""
    kept = [pieces[0]]
    for piece in pieces[1:]:
        before = kept[-1]
        is_apart = not before or before[-1] in " \t"
        after = piece.lstrip(" \t") if is_apart else piece
        if _OPEN in before[-3:] + after[:3]:
            kept.append(" ")
        if after:
            kept.append(after)
    made = "".join(kept)
    return made if pieces[-1].strip(" \t") else made.rstrip(" \t")
