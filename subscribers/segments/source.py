"""The text of a segment expression: read by Python's parser, and pointed at by errors."""

import ast
import re
import warnings

from newsletter.errors import SegmentError

MAX_LENGTH = 4000
#: A list of 600 country codes fits, and 800 conditions joined by ``or``.
_MAX_NODES = 2000
#: SQLite's own parser gives up at 100 nested brackets.
_MAX_DEPTH = 20
_EXCERPT = 76  # characters of the line shown: what a terminal holds


class Source:
    """One expression: ``tree`` is its syntax, ``error`` an error that points into its text."""

    def __init__(self, text: str) -> None:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._lines = text.split("\n")
        if len(text) > MAX_LENGTH:
            raise self._error_at(
                1,
                1,
                1,
                f"the expression is longer than {MAX_LENGTH} characters",
                "Save parts of it as segments of their own: a send can go to several.",
            )
        body = text.strip()
        # Lines may break anywhere, as they may inside brackets; a single line is parsed
        # bare, for Python's messages on unclosed brackets to tell the truth.
        self._wrapped = "\n" in body
        #: How far the parsed text is shifted against the given one on its first line.
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
        """A SegmentError at this part of the text."""
        line = getattr(node, "lineno", 1)
        start = self._characters(line, getattr(node, "col_offset", 0))
        end_line = getattr(node, "end_lineno", line)
        end = self._characters(end_line, getattr(node, "end_col_offset", 0))
        width = end - start if end_line == line else 1
        return self._error_parsed(line, start, width, message, hint)

    def _parse(self, text: str) -> ast.expr:
        try:
            with warnings.catch_warnings():
                # Python's advice on escapes is not for operators.
                warnings.simplefilter("ignore")
                tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            line = min(error.lineno or 1, len(self._parsed))
            column = (error.offset or 0) - 1
            message = error.msg.removesuffix(". Perhaps you forgot a comma?")
            if line != error.lineno or column < 0:  # past the end, maybe at our own bracket
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
            # NUL bytes and halves of surrogate pairs.
            raise self._error_at(
                1, 1, 1, "the expression holds characters that no text can have", None
            ) from None
        outer = isinstance(tree, ast.Tuple | ast.GeneratorExp)
        if self._wrapped and not outer and (tree.lineno, tree.col_offset) == (1, 0):
            # Our own bracket was closed by the text: “a) or (b”.
            raise self._error_at(1, 1, 1, "the brackets do not pair up", None)
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
            1, 1, 1, "the expression is nested too deeply", "Use fewer brackets inside brackets."
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
