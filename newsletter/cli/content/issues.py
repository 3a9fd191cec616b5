"""`newsletter issue` and `newsletter render`: import, test, archive and render issues."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from newsletter.cli.actor import who
from newsletter.cli.content import reviews
from newsletter.cli.output import facts, out
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import IssueError, MachineError
from newsletter.issues import store
from newsletter.issues.digest_import import import_digest
from newsletter.issues.parsing.issue_file import Draft, is_slug, parse_issue
from newsletter.issues.parsing.text import read_text
from newsletter.rendering.preview import SAMPLE_READER, UNKNOWN_READER, Scheme, preview
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Rendered
from newsletter.sending.ledger.recipients import values_of
from newsletter.sending.operations import test_email
from newsletter.settings.load import load
from subscribers.self_service import erasure

app = typer.Typer(help="Create, save, review and approve issues.", no_args_is_help=True)
app.add_typer(reviews.app)


@app.command("import")
def import_issue(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A digest as plain text.")],
    target: Annotated[Path, typer.Option("--out", "-o", help="The issue file to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Turn a plain-text digest into an issue file, word for word."""
    markdown = import_digest(read_text(source), name=str(source))
    if target.exists() and not overwrite:
        raise IssueError(
            "the file exists", place=str(target), hint="Add --overwrite to replace it."
        )
    write(target, markdown)
    entries = markdown.count("\n### ")
    out.print(f"{target}: {entries} entries. Render it: newsletter render {target} --out DIR")


@app.command("archive")
def archive(
    slug: Annotated[str, typer.Argument(help="The issue's slug.")],
    on: Annotated[bool, typer.Option("--on/--off", help="Whether the archive shows it.")],
) -> None:
    """Show an issue in the public archive once it is sent, or hide it."""
    container = Container(load())
    with transaction(container.database) as session:
        issue = store.switch_archive(session, slug, on=on, by=who(), now=datetime.now(UTC))
        sent = issue.published_at is not None
    address = f"{container.settings.site.base_url}/archive/{slug}"
    if not on:
        out.print(f"{slug} is not in the archive. Caches may show it for five minutes more.")
    elif sent:
        out.print(f"{slug} is in the archive: {address}")
    else:
        out.print(f"{slug} will be in the archive once it is sent: {address}")


Chosen = Annotated[str, typer.Argument(help="An issue file, or the slug of a saved issue.")]
As = Annotated[
    str | None,
    typer.Option("--as", metavar="EMAIL", help="With this subscriber's values."),
]


@app.command("test")
def send_test(
    issue: Chosen,
    to: Annotated[
        list[str], typer.Option(metavar="EMAIL", help="The address; may be given several times.")
    ],
    reader: As = None,
) -> None:
    """Send a test email of an issue to a few addresses, with a mark in the subject.

    Its unsubscribe links do nothing. Without --as it has the values of a sample reader.
    """
    container = Container(load())
    gateway, (draft, rendered) = container.gateway, read_and_render(container, issue)
    emails = test_email.send(
        container.database,
        gateway,
        rendered,
        _person(container, reader) if reader else SAMPLE_READER,
        to,
        by=who(),
        now=datetime.now(UTC),
        hash_of=container.hash_of,
        secret=container.address_key,
        slug=draft.slug,
    )
    out.print(f"“{test_email.SUBJECT_PREFIX}{rendered.title}” went to {', '.join(emails)}.")


def render_issue(
    issue: Chosen,
    target: Annotated[Path, typer.Option("--out", help="Folder for issue.html and issue.txt.")],
    reader: As = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Show or hide images.")
    ] = True,
    scheme: Annotated[Scheme | None, typer.Option(help="Render for this color scheme.")] = None,
) -> None:
    """Render an issue to issue.html and issue.txt, with the values of a subscriber (--as).

    Without --as, placeholders have their defaults.
    """
    began = time.perf_counter()
    container = Container(load())
    _, rendered = read_and_render(container, issue)
    person = _person(container, reader) if reader else UNKNOWN_READER
    shown = preview(rendered, person, images=images, scheme=scheme)
    seconds = time.perf_counter() - began
    write(target / "issue.html", shown.html)
    write(target / "issue.txt", shown.text)
    html, text = len(shown.html.encode()), len(shown.text.encode())
    facts(
        [
            ("subject", shown.subject),
            (str(target / "issue.html"), f"{html:,} bytes (Gmail clips at 102,400)"),
            (str(target / "issue.txt"), f"{text:,} bytes"),
            ("rendered in", f"{seconds * 1000:.0f} ms"),
        ]
    )


def _person(container: Container, email: str) -> Mapping[str, Any]:
    """A subscriber's values for placeholders; UserError when no subscriber has this address."""
    with reading(container.database) as session:
        number = erasure.find(session, email, address_key=container.address_key)
        return values_of(session, number)


def read_and_render(container: Container, issue: str | Path) -> tuple[Draft, Rendered]:
    """An issue, read as by ``text_of`` and rendered for the publication."""
    text, name = text_of(container, issue)
    draft = parse_issue(text, name=name)
    return draft, rendered_by(container, draft)


def text_of(container: Container, issue: str | Path) -> tuple[str, str]:
    """The text of this file, or of the saved issue of this slug; and its file name in errors."""
    name = str(issue)
    if Path(name).exists() or not is_slug(name):
        return read_text(Path(name)), name
    with reading(container.database) as session:
        return store.revision_of(session, store.find(session, name)).source, f"{name}.md"


def rendered_by(container: Container, draft: Draft) -> Rendered:
    """A draft, rendered for the publication."""
    return render(draft, container.publication, templates=container.settings.templates_directory)


def write(path: Path, text: str) -> None:
    """Write a file and create its parent folders; MachineError when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"cannot be written: {error.strerror}", place=str(path)) from None
