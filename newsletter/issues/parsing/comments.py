"""Removes HTML comments from an issue's Markdown: notes among editors, which no reader gets.

A comment goes from ``<!--`` to the next ``-->``, across lines. In code, and as ``\\<!--``, it is
text. What is code depends on fences, lists and quotes, so this module parses lines as CommonMark
0.31 defines them (sections 4.4, 4.5, 5.1, 5.2 and 6.1), as far as code is concerned. The result
has as many lines as before, so later errors name the right line.
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
#: Empty comments (CommonMark 0.31, section 6.6).
_EMPTY: Final = ("<!-->", "<!--->")
#: An escape, a run of backquotes or the start of a comment.
_SIGN: Final = re.compile(r"\\.|`+|<!--", re.DOTALL)
#: How often the text without comments may need another pass.
_MOST_PASSES: Final = 20


def without_comments(body: str, *, name: str, line: int) -> str:
    """The body without comments, on as many lines; ``line`` is its first line in the file ``name``.

    Raises IssueError for a comment that is not closed.
    """
    for _ in range(_MOST_PASSES):
        if _OPEN not in body:
            return body
        # Without its comment “1<!-- a -->. b” begins a list, where less text is code.
        before, body = body, _Stripper(body, name, line).stripped()
        if body == before:
            return body
    raise IssueError(
        "comments cannot be distinguished from code here",
        place=f"{name}:{line + body.count(chr(10), 0, body.index(_OPEN))}",
        hint="Write comments on lines of their own.",
    )


#: A quote in the list of open containers; a list item is the number of columns to its text.
_QUOTE: Final = -1


@dataclass(slots=True)
class _Fence:
    sign: str
    length: int
    #: How many quotes and list items contain it.
    depth: int


@dataclass(slots=True)
class _Stripper:
    body: str
    name: str
    first: int
    #: The resulting lines; those without comments stay unchanged.
    lines: list[str] = field(init=False)
    #: The index in the body where each line begins.
    starts: list[int] = field(init=False)
    containers: list[int] = field(default_factory=list)
    fence: _Fence | None = None
    #: Whether the line above belongs to a paragraph, which an indented line would continue.
    in_paragraph: bool = False
    #: Length of a run of backquotes → indexes of such runs, in order.
    ticks: dict[int, list[int]] = field(default_factory=dict)
    #: Whether the line above is the first line of a list item and empty; a second empty line ends
    #: the item.
    is_bare_item: bool = False
    #: The columns to the text of the last opened item, if its first line is empty.
    bare_width: int = 0
    #: The index where code that continues on further lines ends.
    code_until: int = 0
    #: The first line after the current paragraph.
    paragraph_until: int = 0

    def __post_init__(self) -> None:
        self.lines = self.body.split("\n")
        self.starts = [0, *accumulate(len(line) + 1 for line in self.lines)]
        for run in re.finditer("`+", self.body):
            self.ticks.setdefault(len(run[0]), []).append(run.start())

    def stripped(self) -> str:
        """The body without comments, after one pass over its lines."""
        number, count = 0, len(self.lines)
        while number < count:
            number = self._step(number)
        return "\n".join(self.lines)

    def _step(self, number: int) -> int:
        """Read a line, and further lines that its comments continue on; returns the next one."""
        line = MarkdownLine(self._raw(number))
        matched = self._match_containers(line)
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
        """Read a line's content after its container markers; returns the next line to read."""
        target, depth = number, len(self.containers)
        # The text before the content, without comments, and the index up to which it is taken.
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
                return self._read_text(number, line, target, head, is_indented=is_indented)
            # The line begins with comments: the text after them takes their place.
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

    def _read_text(
        self, number: int, line: MarkdownLine, target: int, head: str, *, is_indented: bool
    ) -> int:
        """Read the first line of a block, or the next line of a paragraph.

        An indented line can only be the latter, so it begins no block.
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
                # It was no fence before: “``<!-- a -->` text”.
                kept = "\\" + kept
            self.lines[target] = head + kept
        is_left = kept is None or bool(kept.strip())
        self.in_paragraph = is_left and not is_over and last == number
        return last + 1

    def _inline(self, number: int, at: int, *, is_one_line: bool) -> tuple[str | None, int]:
        """A line's text without comments, None without comments; and the line where it ends."""
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

    def _match_containers(self, line: MarkdownLine) -> int:
        """Skip the markers of open containers at the start of a line; returns how many match."""
        for number, container in enumerate(self.containers):
            if container == _QUOTE:
                # The parser continues a quote however far its marker is indented.
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
        """Whether a line continues a paragraph in deeper containers (lazy continuation)."""
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
        """The marker of a list item that begins here. Not every marker may end a paragraph."""
        if bullet := BULLET.match(rest):
            is_empty = not rest[1:].strip(" \t")
            return "" if self.in_paragraph and is_empty else bullet[0]
        number = NUMBER.match(rest)
        if number and self.in_paragraph:
            return number[0] if begins_block(rest) else ""
        return number[0] if number else ""

    def _end_fence(self, line: MarkdownLine) -> None:
        """Close the fence if this line closes it."""
        fence, rest = self.fence, line.text[line.at :].strip(" \t")
        if fence and line.indent() < 4 and len(rest) >= fence.length and not rest.strip(fence.sign):
            self.fence = None

    def _end_of_paragraph(self, number: int) -> int:
        """The first line after the paragraph that contains this line."""
        if number >= self.paragraph_until:
            end = number + 1
            while end < len(self.lines) and self._continues(MarkdownLine(self._raw(end))):
                end += 1
            self.paragraph_until = end
        return self.paragraph_until

    def _continues(self, line: MarkdownLine) -> bool:
        is_within = self._match_containers(line) == len(self.containers)
        if line.is_blank or line.indent() >= 4:
            return not line.is_blank
        rest = line.text[line.at :].lstrip(" \t")
        if is_within:
            return not (rest.startswith(">") or begins_block(rest) or UNDERLINE.match(rest))
        return not (rest.startswith(">") or _begins_any_block(rest))

    def _end_of_code(self, opening: re.Match[str], limit: int) -> int:
        """The end of the code that may begin here: after as many backquotes, before the limit."""
        length = len(opening[0])
        runs = self.ticks.get(length, [])
        at = bisect_left(runs, opening.end())
        return runs[at] + length if at < len(runs) and runs[at] < limit else opening.end()

    def _end_of_comments(self, at: int) -> int:
        """The end of one or more comments, and of the whitespace between and after them."""
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
                "this comment is not closed",
                place=f"{self.name}:{line}",
                hint="Close it with -->. To show a <!-- to readers, write \\<!--.",
            )
        return end + len("-->")

    def _prefix(self) -> str:
        """The markers with which a line in the open containers begins."""
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
    """Whether a line outside the containers of the paragraph above ends that paragraph."""
    # Within the same containers, an empty item or a list that starts at 2 does not.
    return bool(begins_block(rest) or BULLET.match(rest) or NUMBER.match(rest))


def _joined(pieces: list[str]) -> str:
    """Join the texts around comments with one space, and so that no new comment arises."""
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
