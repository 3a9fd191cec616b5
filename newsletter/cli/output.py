"""What commands print: tables for people, plain lines or JSON for pipes, errors with a remedy."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from newsletter.errors import UserError

#: Results go to stdout; progress and complaints to stderr, so that a pipe gets results only.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def rows(
    records: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str
) -> None:
    """Records as a table on a terminal, tab-separated in a pipe, or JSON Lines when asked."""
    if as_json:
        for record in records:
            sys.stdout.write(json.dumps(record, default=_plain, ensure_ascii=False) + "\n")
        return
    if not records:
        err.print(escape(empty))
        return
    if not out.is_terminal:
        sys.stdout.write("\t".join(columns) + "\n")
        for record in records:
            sys.stdout.write("\t".join(shown(record[column]) for column in columns) + "\n")
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for record in records:
        table.add_row(*(escape(shown(record[column])) for column in columns))
    out.print(table)


def stream(
    records: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str
) -> None:
    """Like ``rows`` for more records than memory should hold: printed as they come."""
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
        err.print(escape(empty))


def facts(pairs: Iterable[tuple[str, object]], *, title: str | None = None) -> None:
    """Names and values, one to a line."""
    if title:
        out.print(f"[bold]{escape(title)}[/bold]")
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs:
        grid.add_row(f"  {escape(name)}", escape(shown(value)))
    out.print(grid)


def shown(value: object) -> str:
    """A value as a person reads it."""
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
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case timedelta():
            return f"{value.total_seconds():,.1f} s"
        case _:
            # No control character of anybody's text may steer the terminal.
            return "".join(c if c.isprintable() else "�" for c in str(value))


def complain(error: UserError) -> None:
    """What is wrong, where, and what to do."""
    place = f"{escape(shown(error.place))}: " if error.place else ""
    err.print(f"[bold red]error:[/bold red] {place}{escape(error.message)}")
    if error.hint:
        err.print(escape(error.hint), style="dim")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
