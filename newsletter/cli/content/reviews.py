"""`newsletter issue …` for saved issues: save, list, show, review, approve, return."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, out, rows, shown
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import read_issue
from newsletter.issues.states import IssueState
from newsletter.settings.load import load

app = typer.Typer()

Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The issue's slug.")]
Note = Annotated[str, typer.Option(help="A note for the other users, kept in the history.")]


@app.command()
def save(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An issue file.")],
    base: Annotated[
        int | None,
        typer.Option(
            "--base",
            metavar="N",
            help="The revision that the file is based on, 0 for a new issue. Refused when "
            "a newer revision exists.",
        ),
    ] = None,
) -> None:
    """Save an issue file as the latest revision of its issue. The issue becomes a draft."""
    draft = read_issue(file)
    container = Container(load())
    with transaction(container.database) as session:
        saved = store.save(session, draft, by=who(), now=datetime.now(UTC), base=base)
        slug, number = saved.issue.slug, saved.revision.number
    if saved.is_new:
        out.print(
            f"Saved revision {number} of {slug}. Request a review: newsletter issue review {slug}"
        )
    else:
        out.print(f"{slug} has this text already, as revision {number}.")


@app.command("list")
def listed(
    state: Annotated[IssueState | None, typer.Option(help="Only those in this state.")] = None,
    series: Annotated[str | None, typer.Option(help="Only those of this series.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the saved issues, most recently changed first."""
    with reading(Container(load()).database) as session:
        records = [
            {
                "issue": one.slug,
                "title": one.title,
                "series": one.series,
                "state": one.state,
                "since": one.since,
            }
            for one in store.listed(session, state=state, series=series, limit=limit)
        ]
    rows(
        records,
        ["issue", "title", "series", "state", "since"],
        as_json=as_json,
        empty="No issue is saved. Save one: newsletter issue save FILE",
    )


@app.command("show")
def show(
    slug: Slug,
    revision: Annotated[
        int | None, typer.Option(metavar="N", help="This revision; without it the latest.")
    ] = None,
) -> None:
    """Print the text of a saved issue to stdout, and its state to stderr."""
    with reading(Container(load()).database) as session:
        issue = store.find(session, slug)
        latest = store.revision_of(session, issue)
        chosen = store.revision_of(session, issue, revision)
    of = "" if chosen.number == latest.number else f" of {latest.number}"
    err.print(
        f"{slug}, revision {chosen.number}{of} by {shown(chosen.author or 'unknown')}, "
        f"{shown(chosen.created_at)}. "
        f"The issue is {approval.STATE_LABELS[IssueState(issue.state)]}.",
    )
    # A file gets the exact text; a terminal must not interpret its control characters.
    text = chosen.source
    if out.is_terminal:
        text = "\n".join(shown(line) if line else "" for line in text.split("\n"))
    typer.echo(text, nl=not text.endswith("\n"))


@app.command("history")
def history(slug: Slug, as_json: AsJson = False) -> None:
    """List an issue's revisions and review steps, oldest first."""
    with reading(Container(load()).database) as session:
        issue = store.find(session, slug)
        records = [
            {"at": one.created_at, "revision": one.number, "step": "stored", "by": one.author}
            for one in store.revisions(session, issue)
        ]
        records += [
            {"at": one.at, "revision": number, "step": one.step, "by": one.actor, "note": one.note}
            for one, number in approval.history(session, issue)
        ]
    records.sort(key=lambda record: (record["at"], record["revision"], record["step"] != "stored"))
    rows(
        [{"note": "", **record} for record in records],
        ["at", "revision", "step", "by", "note"],
        as_json=as_json,
        empty="",
    )


@app.command("review")
def review(slug: Slug, note: Note = "") -> None:
    """Request a review of the latest revision."""
    with transaction(Container(load()).database) as session:
        number = approval.request(session, slug, by=who(), now=datetime.now(UTC), note=note).number
    out.print(
        f"{slug} is in review. Approve it: newsletter issue approve {slug} --revision {number}"
    )


@app.command("approve")
def approve(
    slug: Slug,
    revision: Annotated[int, typer.Option(metavar="N", help="The revision that you have read.")],
    note: Note = "",
) -> None:
    """Approve a revision, so that the issue may be sent."""
    container = Container(load())
    with reading(container.database) as session:
        source = store.revision_of(session, store.find(session, slug)).source
    # An issue that does not render completely must not be approved.
    container.checker.examine_text(source, name=f"{slug}.md")
    with transaction(container.database) as session:
        approval.approve(
            session,
            slug,
            revision=revision,
            by=who(),
            now=datetime.now(UTC),
            note=note,
            second_person=container.settings.review.second_person,
        )
    out.print(f"{slug} is approved. Send it: newsletter send {slug} --segment NAME")


@app.command("return")
def return_to_draft(
    slug: Slug,
    note: Annotated[str, typer.Option(help="What to change.")],
) -> None:
    """Ask for changes, or withdraw an approval. Existing sends keep their text."""
    with transaction(Container(load()).database) as session:
        approval.return_to_draft(session, slug, by=who(), now=datetime.now(UTC), note=note)
    out.print(f"{slug} is a draft again.")
