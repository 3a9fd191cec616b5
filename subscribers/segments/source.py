"""The text of a segment rule: parsed by Python's parser, and quoted in errors."""

import ast
import re
import warnings

from newsletter.errors import SegmentError

MAX_LENGTH = 4000
#: A list of 600 country codes fits, and 800 conditions joined by ``or``.
_MAX_NODES = 2000
#: SQLite's own parser fails at 100 nested parentheses.
_MAX_DEPTH = 20
_EXCERPT = 76  # characters of the line that an error shows: fits a terminal


class Source:
    """The text of one rule: ``tree`` is its syntax, ``error`` makes errors that point into it."""

    def __init__(self, text: str) -> None:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._lines = text.split("\n")
        if len(text) > MAX_LENGTH:
            raise self._error_at(
                1,
                1,
                1,
                f"the expression is longer than {MAX_LENGTH} characters",
                "Save parts of it as separate segments: a send can go to several.",
            )
        body = text.strip()
        # A rule of several lines is parsed in parentheses, so that lines may break anywhere. A
        # single line is parsed bare, so that Python's messages on open brackets are right.
        self._wrapped = "\n" in body
        #: Lines and characters before the parsed text.
        self._skipped_lines = text[: text.index(body[:1])].count("\n") if body else 0
        first = self._lines[self._skipped_lines]
        self._shift = len(first) - len(first.lstrip()) - self._wrapped
        self._parsed = [
            f"({line}" if self._wrapped and not i else line
            for i, line in enumerate(body.split("\n"))
        ]
        self.tree = self._parse(f"({body}\n)" if self._wrapped else body)
        self._measure()

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> SegmentError:
        """A SegmentError at this node."""
        line = getattr(node, "lineno", 1)
        start = self._characters(line, getattr(node, "col_offset", 0))
        end_line = getattr(node, "end_lineno", line)
        end = self._characters(end_line, getattr(node, "end_col_offset", 0))
        width = end - start if end_line == line else 1
        return self._error_parsed(line, start, width, message, hint)

    def _parse(self, text: str) -> ast.expr:
        try:
            with warnings.catch_warnings():
                # Python's warnings about escapes are not for operators.
                warnings.simplefilter("ignore")
                tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            line = min(error.lineno or 1, len(self._parsed))
            column = (error.offset or 0) - 1
            message = error.msg.removesuffix(". Perhaps you forgot a comma?")
            if line != error.lineno or column < 0:  # past the end, maybe at the added parenthesis
                column = len(self._parsed[line - 1])
                message = message.replace("invalid syntax", "it ends too early")
            raise self._error_parsed(
                line,
                column,
                1,
                f"not an expression: {message}",
                'Write for example: plan == "pro" and country in ["DE", "AT"]',
            ) from None
        except (RecursionError, MemoryError):
            raise self._too_deep() from None
        except (ValueError, OverflowError):
            # NUL characters and halves of surrogate pairs.
            raise self._error_at(
                1, 1, 1, "the expression has characters that no text can have", None
            ) from None
        outer = isinstance(tree, ast.Tuple | ast.GeneratorExp)
        if self._wrapped and not outer and (tree.lineno, tree.col_offset) == (1, 0):
            # The text closes the added parenthesis: “a) or (b”.
            raise self._error_at(1, 1, 1, "the brackets do not match", None)
        return tree

    def _measure(self) -> None:
        level: list[ast.AST] = [self.tree]
        nodes = 0
        for _ in range(_MAX_DEPTH):
            nodes += len(level)
            level = [
                child
                for node in level
                for child in ast.iter_child_nodes(node)
                if isinstance(child, ast.expr | ast.keyword)
            ]
            if not level:
                break
        else:
            raise self._too_deep()
        if nodes > _MAX_NODES:
            raise self._error_at(1, 1, 1, "the expression has too many parts", None)

    def _too_deep(self) -> SegmentError:
        return self._error_at(
            1, 1, 1, "the expression is nested too deeply", "Use fewer nested brackets."
        )

    def _characters(self, line: int, octets: int) -> int:
        if line > len(self._parsed):
            return 0
        return len(self._parsed[line - 1].encode()[:octets].decode(errors="ignore"))

    def _error_parsed(
        self, line: int, column: int, width: int, message: str, hint: str | None
    ) -> SegmentError:
        column += self._shift if line == 1 else 0
        return self._error_at(line + self._skipped_lines, max(column, 0) + 1, width, message, hint)

    def _error_at(
        self, line: int, column: int, width: int, message: str, hint: str | None
    ) -> SegmentError:
        text = self._lines[line - 1]
        start = max(0, min(column - _EXCERPT // 2, len(text) - _EXCERPT))
        excerpt = re.sub(r"\s", " ", text[start : start + _EXCERPT])
        excerpt = "".join(c if c.isprintable() else "�" for c in excerpt)
        caret = " " * (column - 1 - start) + "^" * max(1, min(width, start + _EXCERPT - column + 1))
        return SegmentError(
            f"{message}\n  {excerpt}\n  {caret}",
            place=f"segment:{line}:{column}",
            hint=hint,
            span=(line, column, max(1, width)),
        )
