"""`newsletter check`: check an issue before it is sent."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from newsletter.checking.finding import Finding, Level, blocking
from newsletter.checking.planned_send import Plan
from newsletter.cli.content.issues import Chosen, text_of
from newsletter.cli.output import err, out, rows, shown
from newsletter.cli.sending import pacing_options
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.db.orm import Session
from newsletter.settings.load import load

_COLUMNS = ["check", "level", "line", "message", "hint"]
_COLOURS = {Level.BLOCK: "bold red", Level.WARN: "yellow", Level.NOTE: "dim"}
#: As for doctor, not an error of the command itself.
_BLOCKED = 1


def check(
    issue: Chosen,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Also check the recipients of this segment; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--except", help="Exclude this segment; repeatable."),
    ] = None,
    links: Annotated[
        bool,
        typer.Option("--links", help="Request every link and report those that do not answer."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check an issue before it is sent; change nothing.

    Each finding names its line and what to do. config/checks.toml defines which
    checks warn and which block; the exit code is 1 when one blocks.
    """
    container = Container(load())
    text, name = text_of(container, issue)
    with reading(container.database) if segment else nullcontext() as session:
        findings = container.checker.check_text(
            text,
            name=name,
            now=datetime.now(UTC),
            plan=_plan(container, session, segment or (), exclude or ()) if session else None,
            dns=container.dns,
            ask_links=links,
        )
    show(findings, place=name, as_json=as_json)
    if blocking(findings):
        raise typer.Exit(_BLOCKED)


def _plan(
    container: Container, session: Session, segment: Sequence[str], exclude: Sequence[str]
) -> Plan:
    """The timetable of a send without options for its pace."""
    return Plan(
        session,
        segment,
        exclude,
        pacing_options.timetable(container, rate=None, per_hour=None, per_day=None),
        container.settings.sending.batch_size,
        container.warm_up,
    )


def show(findings: Sequence[Finding], *, place: str, as_json: bool = False) -> None:
    """Print the findings as text or JSON, and their number on stderr."""
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
    """Format one finding as text."""
    console, colour = err if to_stderr else out, _COLOURS[finding.level]
    where = f"{place}:{finding.line}" if finding.line else place
    console.print(
        f"[{colour}]{finding.level:>5}[/{colour}]  {escape(shown(where))}: "
        f"{escape(shown(finding.message))} [dim]({finding.check})[/dim]",
        markup=True,
    )
    if finding.hint:
        console.print(f"{'':>7}{shown(finding.hint)}", style="dim")
