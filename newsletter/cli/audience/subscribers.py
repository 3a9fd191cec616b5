"""`newsletter subscribers`: import, export, add, edit, suppress and erase subscribers."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, facts, out, shown
from newsletter.cli.progress import progress
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import UserError
from newsletter.operations import imports
from newsletter.operations import subscribers as subscriber_operations
from newsletter.settings.load import load
from subscribers.directory import edit
from subscribers.list_files.file_reader import unanswered
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store
from subscribers.self_service import erasure
from subscribers.transfer.export import export_people
from subscribers.transfer.import_run import ImportOptions, ImportReport

app = typer.Typer(help="Import, export and manage subscribers.", no_args_is_help=True)

Email = Annotated[str, typer.Argument(help="The subscriber's address.")]


@app.command("import")
def import_file(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON Lines, or an export.")],
    name: Annotated[
        str, typer.Option(help="The source of the list; by default the file's name.")
    ] = "",
    topic: Annotated[
        list[str] | None, typer.Option(help="Topic for all, by slug or name; repeatable.")
    ] = None,
    create_topics: Annotated[
        bool, typer.Option("--create-topics", help="Create topics that only the file has.")
    ] = False,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Confirm that these subscribers opted in.")
    ] = False,
    wording: Annotated[
        str, typer.Option(help="What they consented to; kept in the consent record.")
    ] = "",
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=MEANING", help="What a column means; repeatable."),
    ] = None,
    ignore_column: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Ignore a column; repeatable.")
    ] = None,
    value: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD=STATE", help="What a value of a status column means; repeatable."
        ),
    ] = None,
    read_as: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="STATE", help="The status of all rows: unsubscribed, bounced …"
        ),
    ] = None,
    dates: Annotated[
        str | None, typer.Option(metavar="dmy|mdy", help="How dates like 3/4/2023 are written.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="CSV file for rejected rows, to correct them.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would happen; change nothing.")
    ] = False,
    all_or_nothing: Annotated[
        bool, typer.Option("--all-or-nothing", help="Import all rows or none.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Do not update existing subscribers.")
    ] = False,
    encoding: Annotated[
        str | None, typer.Option(help="The file's encoding, if it is not recognized.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import subscribers. Those who unsubscribed or bounced stay suppressed and are counted.

    A column that may contain unsubscribes is recognized, or stops the import until you say what
    it means. Run an interrupted import again. Exit code 2 when rows were rejected
    or questions are open.
    """
    container = Container(load())
    options = ImportOptions(
        dry_run=dry_run,
        all_or_nothing=all_or_nothing,
        topics=tuple(topic or ()),
        create_topics=create_topics,
        confirmed=confirmed,
        wording=wording,
        update=not keep,
        encoding=encoding,
        mapping=(
            *_pairs(mapping or (), "--map", "Adresse e-mail=email"),
            *((column, "ignore") for column in ignore_column or ()),
        ),
        words=_pairs(value or (), "--value", "gone fishing=unsubscribed"),
        everybody=read_as,
        dates=dates,
    )
    with container.writing_departure_log(), _progress("Importing") as progress:
        report = imports.import_file(
            container,
            source,
            by=who(),
            now=datetime.now(UTC),
            name=name or source.name,
            options=options,
            rejects=rejects,
            progress=progress,
        )
    _print(report, as_json=as_json)
    if report.questions:
        raise unanswered(report.questions, str(source))
    if report.rejected:
        raise UserError(
            f"{report.rejected:,} rows were rejected",
            place=str(source),
            hint=f"They are in {rejects}: correct them there, and import that file."
            if rejects
            else "Write them to a file: --rejects FILE",
        )


def _pairs(texts: Iterable[str], option: str, example: str) -> tuple[tuple[str, str], ...]:
    """Split each text at its last equals sign."""
    found = []
    for text in texts:
        name, sign, meaning = text.rpartition("=")
        if not sign or not meaning.strip():
            raise UserError(
                "there is no meaning after an equals sign",
                place=f"{option} {text}",
                hint=f'Write it like: {option} "{example}"',
            )
        found.append((name, meaning))
    return tuple(found)


def _print(report: ImportReport, *, as_json: bool) -> None:
    would = "" if report.written else "would "
    figures: list[tuple[str, object]] = [
        ("read", report.read),
        (f"{would}get email" if would else "get email", f"{report.mailed:,} of {report.read:,}"),
        *(
            [("if you confirm their consent (--confirmed)", f"{report.mailed_if_vouched:,}")]
            if report.mailed_if_vouched != report.mailed
            else []
        ),
        ("no consent, or not confirmed", report.unconfirmed),
        ("added", report.added),
        ("updated", report.updated),
        ("unchanged", report.unchanged),
        *((f"suppressed: {how}", number) for how, number in report.left.items()),
        *((f"not imported: {why}", number) for why, number in report.refused.items()),
        ("duplicates in the file", report.duplicates),
        ("rejected", report.rejected),
        *_about_topics(report),
        ("seconds", report.seconds),
    ]
    if as_json:
        sys.stdout.write(json.dumps(_as_json(report), ensure_ascii=False) + "\n")
        return
    title = f"{report.kind}, {report.encoding}"
    facts(figures, title=title if report.written else f"{title} — nothing was written")
    facts(
        ((name or "(no name)", meaning or "ignored") for name, meaning in report.columns),
        title="Columns",
    )
    if report.note:
        err.print(report.note)
    for reject in report.examples:
        err.print(f"line {reject.line}: {shown(reject.reason)}")
    if report.new_topics:
        out.print(f"new topics: {shown(', '.join(report.new_topics))}")


def _about_topics(report: ImportReport) -> Iterator[tuple[str, object]]:
    """Print the number of subscribers with each topic of the file, and with none."""
    for slug, number in sorted(report.topics.items()):
        yield f"topic {slug}", number
    for word, number in _most(report.unknown_topics):
        yield f"unknown topic: {word}", number
    for word, number in _most(report.other_tags):
        yield f"tag, not a topic: {word}", number
    if report.has_topics and report.without_topic:
        yield "without a topic: get only issues without topics", report.without_topic


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The twenty most frequent values."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]


def _as_json(report: ImportReport) -> dict[str, object]:
    return {
        "read": report.read,
        "mailed": report.mailed,
        "mailed_if_vouched": report.mailed_if_vouched,
        "unconfirmed": report.unconfirmed,
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        **{f"suppressed: {how}": number for how, number in report.left.items()},
        **{f"not imported: {why}": number for why, number in report.refused.items()},
        "duplicates in the file": report.duplicates,
        "rejected": report.rejected,
        "seconds": report.seconds,
        "written": report.written,
        "columns": [
            {"column": name, "becomes": meaning or None} for name, meaning in report.columns
        ],
        "topics": dict(report.topics),
        "unknown_topics": dict(_most(report.unknown_topics)),
        "other_tags": dict(_most(report.other_tags)),
        "without_topic": report.without_topic,
        "new_topics": list(report.new_topics),
        "questions": [
            {"about": one.about, "question": one.message, "answer": one.answer}
            for one in report.questions
        ],
    }


@app.command("export")
def export_file(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, or JSON Lines by .jsonl.")],
    segment: Annotated[
        str | None, typer.Option(help="Only the subscribers of this segment.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Export subscribers with topics and consent, in a form that import reads."""
    if target.exists() and not overwrite:
        raise UserError("the file exists", place=str(target), hint="Add --overwrite.")
    now = datetime.now(UTC)
    with reading(Container(load()).database) as session, _progress("Exporting") as progress:
        rule = segment_store.find(session, segment).expression if segment else ""
        number = export_people(
            session,
            segment_store.condition(session, rule, now=now),
            target,
            form="jsonl" if target.suffix in {".jsonl", ".ndjson"} else "csv",
            progress=progress,
        )
    out.print(f"{target}: {number:,} people.")


@app.command("data")
def data(email: Email) -> None:
    """Print all data of a subscriber as JSON."""
    container = Container(load())
    with transaction(container.database) as session:
        number = erasure.find(session, email, address_key=container.address_key)
        everything = subscriber_operations.export_data(
            session, number, by=who(), now=datetime.now(UTC)
        )
    sys.stdout.write(json.dumps(everything, indent=2, ensure_ascii=False))
    sys.stdout.write("\n")


@app.command("erase")
def erase(
    email: Email,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all data of a subscriber. A keyed hash stays, so that no import adds them again."""
    container = Container(load())
    with container.writing_departure_log(), transaction(container.database) as session:
        number = erasure.find(session, email, address_key=container.address_key)
        if not yes and not typer.confirm("This cannot be undone. Erase this subscriber?", err=True):
            raise typer.Exit(1)
        subscriber_operations.erase(session, number, by=who(), now=datetime.now(UTC))
    out.print("Erased. A keyed hash stays among the suppressions.")


@app.command("add")
def add(
    email: Email,
    wording: Annotated[
        str, typer.Option(help="What they consented to and how; kept as the consent record.")
    ],
    name: Annotated[str, typer.Option(help="Their name.")] = "",
    topic: Annotated[list[str] | None, typer.Option(help="Topic, by slug; repeatable.")] = None,
) -> None:
    """Add a subscriber who consented elsewhere."""
    container = Container(load())
    details = edit.read(name=name, language="", timezone="", attributes="", topics=topic or ())
    with transaction(container.database) as session:
        number = subscriber_operations.add(
            session,
            email,
            details,
            by=who(),
            now=datetime.now(UTC),
            address_key=container.address_key,
            wording=wording,
        )
    out.print(f"{email} is subscriber {number}.")


@app.command("edit")
def change(
    email: Email,
    name: Annotated[str | None, typer.Option(help="Their name.")] = None,
    language: Annotated[str | None, typer.Option(help="Such as en or pt-BR.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Such as Europe/Berlin.")] = None,
    attributes: Annotated[str | None, typer.Option(help="All attributes, as JSON.")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="All topics, each by slug; repeatable.")
    ] = None,
    wording: Annotated[
        str, typer.Option(help="What they consented to and how; needed for a new topic.")
    ] = "",
) -> None:
    """Change a subscriber's details. Omitted options keep their values."""
    container = Container(load())
    with transaction(container.database) as session:
        found = _subscriber(session, container, email)
        before = edit.details_of(session, found)
        details = edit.read(
            name=before.name if name is None else name,
            language=(before.language or "") if language is None else language,
            timezone=(before.timezone or "") if timezone is None else timezone,
            attributes=json.dumps(dict(before.attributes or {}))
            if attributes is None
            else attributes,
            topics=before.topics if topic is None else topic,
        )
        changed = subscriber_operations.edit(
            session,
            found.id,
            details,
            by=who(),
            now=datetime.now(UTC),
            seen=edit.stamp(before),
            wording=wording,
        )
    out.print(f"Changed: {', '.join(changed)}." if changed else "Nothing changed.")


@app.command("suppress")
def suppress(
    email: Email,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the suppression.")],
) -> None:
    """Suppress a subscriber: they get no more emails."""
    container = Container(load())
    with container.writing_departure_log(), transaction(container.database) as session:
        found = _subscriber(session, container, email)
        subscriber_operations.suppress(
            session, found.id, by=who(), now=datetime.now(UTC), reason=reason
        )
    out.print(f"{email} is suppressed.")


@app.command("lift")
def lift(email: Email) -> None:
    """Lift a suppression that an operator made. For bounces: newsletter suppressions lift."""
    container = Container(load())
    with container.writing_departure_log(), transaction(container.database) as session:
        found = _subscriber(session, container, email)
        remains = subscriber_operations.lift_suppression(
            session, found, by=who(), now=datetime.now(UTC)
        )
    out.print(
        f"{email} is still suppressed: {remains}." if remains else f"{email} gets email again."
    )


def _subscriber(session: Session, container: Container, email: str) -> Subscriber:
    """The subscriber of this address; UserError if there is none."""
    number = erasure.find(session, email, address_key=container.address_key)
    return session.get_one(Subscriber, number)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, float], None]]:
    with progress() as bar:
        task = bar.add_task(what, total=1.0, said="")

        def update(rows: int, part: float) -> None:
            bar.update(task, completed=part, said=f"{part:.0%} · {rows:,} people")

        yield update
