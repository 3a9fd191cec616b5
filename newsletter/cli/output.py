"""Output of commands: tables on terminals, tab-separated lines or JSON in pipes, and errors."""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import IO, Any, cast
from zoneinfo import ZoneInfo

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from newsletter import durations
from newsletter.errors import UserError
from newsletter.sending.pacing.sending_windows import written

#: Columns of a cell that wraps. With fewer, the values of a record are shown below each other.
_NARROWEST = 20


class Screen(Console):
    """A terminal of any width, or a pipe.

    On a terminal, lines are wrapped between words. A word longer than a line, such as a key or a
    path, stays whole, so that it can be copied. With NO_COLOR (no-color.org) and on a dumb terminal
    no escape codes are written; in a pipe, lines are not wrapped either.
    """

    def __init__(self, *, stderr: bool) -> None:
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in {"dumb", "unknown"}
        super().__init__(
            stderr=stderr,
            file=cast("IO[str]", _Stderr()) if stderr else None,
            highlight=False,
            color_system=None if plain else "auto",
        )

    @property
    def is_plain(self) -> bool:
        """Whether to write no escape codes: in a pipe, on a dumb terminal, with NO_COLOR."""
        return not self.is_terminal or self.color_system is None

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401
        """Print without truncation. Removes control characters, and reads rich's markup only with
        ``markup``, so that untrusted text cannot control the terminal.
        """
        markup: bool = options.pop("markup", False)
        texts = [self._text(one, markup=markup) if isinstance(one, str) else one for one in objects]
        super().print(*texts, **{"soft_wrap": True, **options})

    def _text(self, words: str, *, markup: bool) -> Text:
        plain = _printable(words, but="\n")
        text = Text.from_markup(plain, emoji=False) if markup else Text(plain)
        return _wrapped(text, self.width) if self.is_terminal else text


def _wrapped(text: Text, width: int) -> Text:
    """The text with long lines wrapped at blanks, keeping their indentation."""
    lines = []
    for line in text.split("\n", allow_blank=True):
        plain, breaks = line.plain, list[int]()
        indent = len(plain) - len(plain.lstrip(" "))
        begun = indent
        for word in re.finditer(r"\S+", plain):
            if word.start() > begun:
                taken = cell_len(plain[begun : word.end()]) + indent
                if taken > width:
                    breaks.append(word.start())
                    begun = word.start()
        first, *others = line.divide(breaks)
        lines.append(first)
        lines += [Text(" " * indent).append_text(other) for other in others]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


class _Stderr:
    """The current sys.stderr. If its terminal was closed, output is dropped and work continues."""

    @property
    def _stream(self) -> IO[str]:
        # While a progress bar is shown, sys.stderr itself writes through the console.
        stream: IO[str] = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return stream

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        """Send buffered and later output to /dev/null."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


#: Results go to stdout, progress and errors to stderr, so that a pipe gets only results.
out = Screen(stderr=False)
err = Screen(stderr=True)


def rows(
    records: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str
) -> None:
    """Print records as a table on a terminal, tab-separated in a pipe, or as JSON Lines."""
    if as_json:
        for record in records:
            sys.stdout.write(json.dumps(record, default=_plain, ensure_ascii=False) + "\n")
        return
    if not records:
        err.print(empty)
        return
    if not out.is_terminal:
        sys.stdout.write("\t".join(columns) + "\n")
        for record in records:
            sys.stdout.write("\t".join(shown(record[column]) for column in columns) + "\n")
        return
    cells = [[shown(record[column]) for column in columns] for record in records]
    table = _table(columns, cells)
    if table is not None:
        out.print(table, soft_wrap=False)
        return
    # Too wide for a table: print each value on its own line.
    for number, line in enumerate(cells):
        if number:
            out.print()
        _lines(list(zip(columns, line, strict=True)), indent=0)


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Table | None:
    """The table, with its widest column wrapped if needed; None if it is still too wide."""
    every = list(zip(*([columns, *cells]), strict=True))
    widths = [max(map(cell_len, column)) for column in every]
    widest = widths.index(max(widths))
    room = out.width - sum(widths) - 2 * (len(widths) - 1) + widths[widest]
    longest = max(cell_len(word) for cell in every[widest] for word in cell.split() or [""])
    if room < min(widths[widest], max(longest, _NARROWEST)):
        return None
    widths[widest] = min(widths[widest], room)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, width in zip(columns, widths, strict=True):
        table.add_column(name, width=width)
    for line in cells:
        table.add_row(*map(escape, line))
    return table


def stream(
    records: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str
) -> None:
    """Like ``rows``, but print each record at once, for results that do not fit in memory."""
    first = True
    for record in records:
        if as_json:
            line = json.dumps(record, default=_plain, ensure_ascii=False)
        else:
            if first:
                sys.stdout.write("\t".join(columns) + "\n")
            line = "\t".join(shown(record[column]) for column in columns)
        sys.stdout.write(line + "\n")
        first = False
    if first and not as_json:
        err.print(empty)


def facts(pairs: Iterable[tuple[str, object]], *, title: str | None = None) -> None:
    """Print names and values, one pair per line."""
    if title:
        out.print(f"[bold]{escape(title)}[/bold]", markup=True)
    _lines([(name, shown(value)) for name, value in pairs], indent=2)


def _lines(pairs: Sequence[tuple[str, str]], *, indent: int) -> None:
    """Print names and values side by side, or below each other if the terminal is too narrow.

    A value that is one long word is never wrapped.
    """
    if not pairs:
        return
    widest = max(cell_len(name) for name, _ in pairs)
    room = out.width - indent - widest - 2
    for name, value in pairs:
        longest = max(map(cell_len, value.split()), default=0)
        beside = not out.is_terminal or (room >= out.width // 3 and longest <= room)
        if beside and (not out.is_terminal or cell_len(value) <= room):
            gap = " " * (widest - cell_len(name) + 2)
            out.print(f"{'':{indent}}{name}{gap}{value}".rstrip())
        elif beside:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(no_wrap=True, width=indent + widest)
            grid.add_column()
            grid.add_row(f"{'':{indent}}{escape(name)}", escape(value))
            out.print(grid, soft_wrap=False)
        else:
            out.print(f"{'':{indent}}{name}")
            out.print(f"{'':{indent + 2}}{value}")


def shown(value: object) -> str:
    """The value in readable form."""
    match value:
        case None | "":
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case datetime():
            return written(value, _zone())
        case timedelta():
            return durations.in_words(value)
        case _:
            return _printable(str(value))


@cache
def _zone() -> ZoneInfo:
    """The publication's time zone, because the machine's is usually UTC."""
    from newsletter.settings import publication  # noqa: PLC0415 (help needs no settings)
    from newsletter.settings.load import load  # noqa: PLC0415

    try:
        loaded = load()
        return ZoneInfo(publication.applied(loaded, publication.peek(loaded)).site.timezone)
    except UserError:
        return ZoneInfo("UTC")  # the command itself reports the error in the settings


def _printable(text: str, *, but: str = "") -> str:
    """The text with control characters replaced, so that it cannot control the terminal."""
    return "".join(c if c.isprintable() or c in but else "�" for c in text)


def print_error(error: UserError) -> None:
    """Print what is wrong, where, and what to do."""
    place = f"{escape(shown(error.place))}: " if error.place else ""
    err.print(f"[bold red]error:[/bold red] {place}{escape(error.message)}", markup=True)
    if error.hint:
        err.print(error.hint, style="dim")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
