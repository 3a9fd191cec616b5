"""`newsletter subscribers`: bring people in, take them out, and their rights over their data."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from newsletter.assembly import Assembly
from newsletter.cli.output import err, facts, out
from newsletter.cli.settings import AsJson
from newsletter.database import reading, transaction
from newsletter.errors import UserError
from newsletter.settings import load
from newsletter.tracking import person
from subscribers import erasure, expression, segments
from subscribers.exporting import export_people
from subscribers.importing import ImportOptions, ImportReport, import_people

app = typer.Typer(help="Import, export, and look after people's data.", no_args_is_help=True)

Email = Annotated[str, typer.Argument(help="The person's address, however it is spelt.")]


@app.command("import")
def import_file(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON Lines, or an export.")],
    name: Annotated[str, typer.Option(help="Where they come from; else the file's name.")] = "",
    topic: Annotated[list[str] | None, typer.Option(help="Topic for all; repeatable.")] = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="You vouch that these people opted in.")
    ] = False,
    wording: Annotated[str, typer.Option(help="What they agreed to; kept as consent.")] = "",
    rejects: Annotated[
        Path | None, typer.Option(help="CSV for rows that cannot be taken, with reasons.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")
    ] = False,
    all_or_nothing: Annotated[
        bool, typer.Option("--all-or-nothing", help="Take every row, or none.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave people as they are who are known already.")
    ] = False,
    encoding: Annotated[str | None, typer.Option(help="Where the guess is wrong.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import people. Whoever left or bounced stays out, and is counted.

    A run that was interrupted is simply run again. Exit code 2 when rows were rejected.
    """
    assembly = Assembly(load())
    options = ImportOptions(
        dry_run=dry_run,
        all_or_nothing=all_or_nothing,
        topics=tuple(topic or ()),
        confirmed=confirmed,
        wording=wording,
        update=not keep,
        encoding=encoding,
    )
    with assembly.journaling(), _progress("Importing") as progress:
        report = import_people(
            assembly.database,
            source,
            address_key=assembly.address_key,
            now=datetime.now(UTC),
            name=name or source.name,
            options=options,
            rejects=rejects,
            progress=progress,
        )
    _print(report, as_json=as_json)
    if report.rejected:
        raise UserError(
            f"{report.rejected:,} rows could not be taken",
            place=str(source),
            hint=f"They are in {rejects}." if rejects else "Name a file for them: --rejects FILE",
        )


def _print(report: ImportReport, *, as_json: bool) -> None:
    figures: list[tuple[str, object]] = [
        ("read", report.read),
        ("added", report.added),
        ("updated", report.updated),
        ("unchanged", report.unchanged),
        *((f"left elsewhere: {how}", number) for how, number in report.left.items()),
        *((f"stays out: {why}", number) for why, number in report.refused.items()),
        ("duplicates in the file", report.duplicates),
        ("rejected", report.rejected),
        ("seconds", report.seconds),
    ]
    if as_json:
        sys.stdout.write(json.dumps({**dict(figures), "written": report.written}) + "\n")
        return
    title = f"{report.kind}, {report.encoding}"
    facts(figures, title=title if report.written else f"{title} — nothing was written")
    if report.note:
        err.print(report.note, markup=False)
    for reject in report.examples:
        err.print(f"line {reject.line}: {reject.reason}", markup=False)
    if report.new_topics:
        out.print(f"new topics: {', '.join(report.new_topics)}", markup=False)


@app.command("export")
def export_file(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, or JSON Lines by .jsonl.")],
    segment: Annotated[str | None, typer.Option(help="Only the people of this segment.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Export people with their topics and consent, to be imported again as they are."""
    if target.exists() and not overwrite:
        raise UserError("the file exists", place=str(target), hint="Add --overwrite.")
    now = datetime.now(UTC)
    with reading(Assembly(load()).database) as session, _progress("Exporting") as progress:
        rule = segments.find(session, segment).expression if segment else ""
        number = export_people(
            session,
            expression.condition(rule, now=now),
            target,
            form="jsonl" if target.suffix in {".jsonl", ".ndjson"} else "csv",
            progress=progress,
        )
    out.print(f"{target}: {number:,} people.", markup=False)


@app.command("data")
def data(email: Email) -> None:
    """Print everything that is kept of a person, as JSON."""
    assembly = Assembly(load())
    with reading(assembly.database) as session:
        who = erasure.find(session, email, address_key=assembly.address_key)
        sys.stdout.write(json.dumps(person.data_of(session, who), indent=2, ensure_ascii=False))
        sys.stdout.write("\n")


@app.command("erase")
def erase(
    email: Email,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all that is kept of a person; a keyed hash stays, so that they stay out."""
    assembly = Assembly(load())
    with assembly.journaling(), transaction(assembly.database) as session:
        who = erasure.find(session, email, address_key=assembly.address_key)
        if not yes and not typer.confirm("This cannot be undone. Erase this person?", err=True):
            raise typer.Exit(1)
        person.erase(session, who, now=datetime.now(UTC))
    out.print("Erased. A keyed hash stays among the suppressions.")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, float], None]]:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} people"),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=1.0, rows=0)
        yield lambda rows, part: bar.update(task, completed=part, rows=rows)
