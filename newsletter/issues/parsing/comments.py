"""HTML comments in an issue's Markdown: notes among editors, which no reader gets.

A comment goes from ``<!--`` to the next ``-->``, over as many lines as it likes. In code it is
text, as everything there, and so is ``\\<!--``. What is code depends on fences, lists and
quotes, so the lines are read as CommonMark 0.31 has it (sections 4.4, 4.5, 5.1, 5.2 and 6.1),
as far as code is concerned. What remains stands on as many lines as before, so that whatever
is said of it later names the right one.
"""

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from newsletter.errors import IssueError
from newsletter.issues.parsing.line_starts import (
    BULLET,
    FENCE,
    HEADING,
    NUMBER,
    RULE,
    UNDERLINE,
    MarkdownLine,
    begins_block,
)

_OPEN: Final = "<!--"
#: Comments that end where they begin (CommonMark 0.31, section 6.6).
_EMPTY: Final = ("<!-->", "<!--->")
#: What is not plain text in a paragraph.
_SIGN: Final = re.compile(r"\\.|`+|<!--", re.DOTALL)
#: How often what is left may come to be read in another way.
_MOST_READINGS: Final = 20


def without_comments(body: str, *, name: str, line: int) -> str:
    """The body without its comments, on as many lines; ``line`` is its first in the file ``name``.

    Raises IssueError where a comment has no end.
    """
    for _ in range(_MOST_READINGS):
        if _OPEN not in body:
            return body
        # Without its comments “1<!-- a -->. b” begins a list, in which less is code.
        before, body = body, _Stripper(body, name, line).stripped()
        if body == before:
            return body
    raise IssueError(
        "comments that cannot be told from code",
        place=f"{name}:{line + body.count(chr(10), 0, body.index(_OPEN))}",
        hint="Write comments on lines of their own.",
    )


#: A quote among what is open; a list's item stands there as the columns to its text.
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
    #: The columns to the text of the item that opened last if its first line has none.
    bare_width: int = 0
    #: Where code ends that goes on over the end of a line.
    code_until: int = 0
    #: The first line that is not of the paragraph which is being read.
    paragraph_until: int = 0

    def __post_init__(self) -> None:
        self.lines = self.body.split("\n")
        self.starts = [0, *accumulate(len(line) + 1 for line in self.lines)]
        for run in re.finditer("`+", self.body):
            self.ticks.setdefault(len(run[0]), []).append(run.start())

    def stripped(self) -> str:
        """Read every line once; those with comments are written anew."""
        number, count = 0, len(self.lines)
        while number < count:
            number = self._step(number)
        return "\n".join(self.lines)

    def _step(self, number: int) -> int:
        """Read a line, with comments that go on over further ones; returns the next to read."""
        line = MarkdownLine(self._raw(number))
        matched = self._go_in(line)
        if self.fence:
            if matched >= self.fence.depth:
                self._end_fence(line)
                return number + 1
            self.fence = None
        was_bare, self.is_bare_item = self.is_bare_item, False
        if line.is_blank:
            self.in_paragraph = False
            if was_bare and matched == len(self.containers):
                matched -= 1
            del self.containers[matched:]
            return number + 1
        if matched < len(self.containers) and not self._is_lazy(line):
            del self.containers[matched:]
            self.in_paragraph = False
        return self._read(number, line)

    def _read(self, number: int, line: MarkdownLine) -> int:
        """Read what a line has within its containers; returns the next line to read."""
        target, depth = number, len(self.containers)
        # What comes before the words, without comments; and from where the line is not in it yet.
        head, since = "", 0
        while True:
            self._open_containers(line)
            opened = self.containers[depth:]
            if line.is_blank:
                self.is_bare_item = bool(opened) and opened[-1] != _QUOTE
                if self.is_bare_item:
                    self.containers[-1] = self.bare_width
                break
            is_indented = line.indent() >= 4
            if is_indented and not self.in_paragraph:
                break
            line.take(3)
            head, since = head + line.text[since : line.at], line.at
            if self.in_paragraph or not line.text.startswith(_OPEN, line.at):
                return self._words(number, line, target, head, is_indented=is_indented)
            # Comments before anything else: what stands behind them comes in their place.
            end = self._end_of_comments(self.starts[number] + line.at)
            last = bisect_right(self.starts, end) - 1
            is_item = any(one != _QUOTE for one in opened)
            column, base = line.column, line.base
            if last > number and not is_item and target == number:
                self._blank(number, last)
                head, target, depth = self._prefix(), last, len(self.containers)
                column = base = len(head)
            elif last > number:
                self._blank(number + 1, last + 1)
            number, since = last, end - self.starts[last]
            line = MarkdownLine(self._raw(last), since, column, base)
            self.lines[target] = head + line.text[since:]
        return number + 1

    def _words(
        self, number: int, line: MarkdownLine, target: int, head: str, *, is_indented: bool
    ) -> int:
        """Read a block's own first words, or the next line of a paragraph.

        One that is indented so far that it can only be the latter begins nothing.
        """
        rest = line.text[line.at :]
        if not is_indented and (opening := FENCE.match(rest)):
            sign = opening[1] or opening[2]
            self.fence = _Fence(sign[0], len(sign), len(self.containers))
            self.in_paragraph = False
            return number + 1
        is_underline = self.in_paragraph and UNDERLINE.match(rest)
        is_over = not is_indented and (is_underline or HEADING.match(rest) or RULE.match(rest))
        kept, last = self._inline(number, line.at, is_one_line=bool(is_over))
        if kept is not None:
            self._blank(number, last + 1)
            if not is_indented and FENCE.match(kept) and not rest.startswith(_OPEN):
                # It was none before: “``<!-- a -->` words”.
                kept = "\\" + kept
            self.lines[target] = head + kept
        is_left = kept is None or bool(kept.strip())
        self.in_paragraph = is_left and not is_over and last == number
        return last + 1

    def _inline(self, number: int, at: int, *, is_one_line: bool) -> tuple[str | None, int]:
        """A line's words without comments, None where it has none; and the line where they end."""
        pieces: list[str] = []
        begun, last = self.starts[number] + at, number
        at = max(begun, self.code_until)
        while sign := _SIGN.search(self.body, at, max(at, self.starts[last + 1] - 1)):
            at = sign.end()
            if sign[0][0] == "`":
                at = self.code_until = self._end_of_code(
                    sign, self.starts[last + 1 if is_one_line else self._end_of_paragraph(last)]
                )
            elif sign[0] == _OPEN:
                pieces.append(self.body[begun : sign.start()])
                begun = at = self._end_of_comment(sign.start())
                last = bisect_right(self.starts, at) - 1
        if not pieces:
            return None, number
        pieces.append(self.body[begun : self.starts[last + 1] - 1])
        return _joined(pieces), last

    def _go_in(self, line: MarkdownLine) -> int:
        """Go over what the open containers have at a line's beginning; returns how many have."""
        for number, container in enumerate(self.containers):
            if container == _QUOTE:
                # The parser goes on with a quote however far its mark is indented.
                if not line.text[line.at :].lstrip(" \t").startswith(">"):
                    return number
                self._quote(line)
            elif line.is_blank:
                continue
            elif line.indent() >= container:
                line.take(container)
            else:
                return number
            line.base = line.column
        return len(self.containers)

    def _quote(self, line: MarkdownLine) -> None:
        line.take(line.indent())
        line.skip(1)
        line.take(1)

    def _is_lazy(self, line: MarkdownLine) -> bool:
        """Whether a line goes on with a paragraph that stands deeper."""
        rest = line.text[line.at :].lstrip(" \t")
        is_block = rest.startswith((">", _OPEN)) or _begins_any_block(rest)
        return self.in_paragraph and (line.indent() >= 4 or not is_block)

    def _open_containers(self, line: MarkdownLine) -> None:
        """Open the quotes and lists that begin on a line."""
        while line.indent() < 4:
            rest = line.text[line.at :].lstrip(" \t")
            if rest.startswith(">"):
                self._quote(line)
                self.containers.append(_QUOTE)
            elif not RULE.match(rest) and (marker := self._marker(rest)):
                line.take(3)
                line.skip(len(marker))
                self.bare_width = line.column + 1 - line.base
                indent = line.indent()
                line.take(indent if indent <= 4 else 1)
                self.containers.append(line.column - line.base)
            else:
                break
            line.base = line.column
            self.in_paragraph = False

    def _marker(self, rest: str) -> str:
        """The mark of a list's item, if one begins here; below a paragraph not every one may."""
        if bullet := BULLET.match(rest):
            is_empty = not rest[1:].strip(" \t")
            return "" if self.in_paragraph and is_empty else bullet[0]
        number = NUMBER.match(rest)
        if number and self.in_paragraph:
            return number[0] if begins_block(rest) else ""
        return number[0] if number else ""

    def _end_fence(self, line: MarkdownLine) -> None:
        """Close the fence if this line does."""
        fence, rest = self.fence, line.text[line.at :].strip(" \t")
        if fence and line.indent() < 4 and len(rest) >= fence.length and not rest.strip(fence.sign):
            self.fence = None

    def _end_of_paragraph(self, number: int) -> int:
        """The first line that does not go on with the paragraph that this line is of."""
        if number >= self.paragraph_until:
            end = number + 1
            while end < len(self.lines) and self._goes_on(MarkdownLine(self._raw(end))):
                end += 1
            self.paragraph_until = end
        return self.paragraph_until

    def _goes_on(self, line: MarkdownLine) -> bool:
        is_within = self._go_in(line) == len(self.containers)
        if line.is_blank or line.indent() >= 4:
            return not line.is_blank
        rest = line.text[line.at :].lstrip(" \t")
        if is_within:
            return not (rest.startswith(">") or begins_block(rest) or UNDERLINE.match(rest))
        return not (rest.startswith(">") or _begins_any_block(rest))

    def _end_of_code(self, opening: re.Match[str], limit: int) -> int:
        """Where code ends that may begin here: behind as many backquotes before the limit."""
        length = len(opening[0])
        runs = self.ticks.get(length, [])
        at = bisect_left(runs, opening.end())
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
            prefix += "> " if container == _QUOTE else " " * container
        return prefix

    def _blank(self, first: int, end: int) -> None:
        for number in range(first, end):
            self.lines[number] = self._prefix().rstrip()

    def _raw(self, number: int) -> str:
        return self.body[self.starts[number] : self.starts[number + 1] - 1]


def _begins_any_block(rest: str) -> bool:
    """Whether a line ends the paragraph above it from outside of its quotes and items."""
    # Only within the same ones these may not.
    return bool(begins_block(rest) or BULLET.match(rest) or NUMBER.match(rest))


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
