"""`newsletter check`: what is to be said of an issue before it is sent."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from newsletter.assembly import Assembly
from newsletter.checking.case import Plan
from newsletter.checking.checker import blocks
from newsletter.checking.finding import Finding, Level
from newsletter.cli.output import err, out, rows, shown
from newsletter.cli.settings import AsJson
from newsletter.database import reading
from newsletter.issues.reading import read_text
from newsletter.settings import load

_COLUMNS = ["check", "level", "line", "message", "hint"]
_COLOURS = {Level.BLOCK: "bold red", Level.WARN: "yellow", Level.NOTE: "dim"}
#: As of the doctor: the command itself did what it should.
_BLOCKED = 1


def check(
    issue: Annotated[Path, typer.Argument(help="An issue file (Markdown with front matter).")],
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Look at this segment's people as well; may be given again."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--except", help="Segment to leave out; may be given again."),
    ] = None,
    links: Annotated[
        bool, typer.Option("--links", help="Ask every link whether something answers there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at an issue before it is sent; change nothing.

    What is found stands with its line and a way to mend it. config/checks.toml says which
    checks warn and which block; the exit code is 1 when one blocks.
    """
    assembly, text = Assembly(load()), read_text(issue)
    with reading(assembly.database) if segment else nullcontext() as session:
        findings = assembly.checker.check_text(
            text,
            name=str(issue),
            now=datetime.now(UTC),
            plan=Plan(session, segment or (), exclude or ()) if session else None,
            dns=assembly.dns,
            ask_links=links,
        )
    show(findings, place=str(issue), as_json=as_json)
    if blocks(findings):
        raise typer.Exit(_BLOCKED)


def show(findings: Sequence[Finding], *, place: str, as_json: bool = False) -> None:
    """Findings for people on a terminal, for programs elsewhere; their number on stderr."""
    if as_json or not out.is_terminal:
        rows(
            [asdict(finding) for finding in findings],
            _COLUMNS,
            as_json=as_json,
            empty="nothing found",
        )
    else:
        for finding in findings:
            tell(finding, place)
    number = {level: sum(one.level is level for one in findings) for level in Level}
    err.print(f"{number[Level.BLOCK]} block, {number[Level.WARN]} warn.")


def tell(finding: Finding, place: str, *, to_stderr: bool = False) -> None:
    """One finding, as a person reads it."""
    console, colour = err if to_stderr else out, _COLOURS[finding.level]
    where = f"{place}:{finding.line}" if finding.line else place
    console.print(
        f"[{colour}]{finding.level:>5}[/{colour}]  {escape(shown(where))}: "
        f"{escape(shown(finding.message))} [dim]({finding.check})[/dim]"
    )
    if finding.hint:
        console.print(f"{'':>7}{escape(shown(finding.hint))}", style="dim")
