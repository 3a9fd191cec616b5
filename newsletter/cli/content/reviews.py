"""`newsletter issue …` for what is stored: keep it, look at it, review it, approve it."""

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
Note = Annotated[str, typer.Option(help="A word to the others, kept with the step.")]


@app.command("store")
def keep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An issue file.")],
    base: Annotated[
        int | None,
        typer.Option(
            "--base",
            metavar="N",
            help="The revision that the file was made from, 0 for none: refused when "
            "somebody stored another since.",
        ),
    ] = None,
) -> None:
    """Store an issue file as the latest revision of its issue, which makes it a draft."""
    draft = read_issue(file)
    parts = Container(load())
    with transaction(parts.database) as session:
        saved = store.save(session, draft, by=who(), now=datetime.now(UTC), base=base)
        slug, number = saved.issue.slug, saved.revision.number
    if saved.is_new:
        out.print(f"{slug} has revision {number}. Ask for a review: newsletter issue review {slug}")
    else:
        out.print(f"{slug} has this very text already, as revision {number}.")


@app.command("list")
def listed(
    state: Annotated[IssueState | None, typer.Option(help="Only those in this state.")] = None,
    series: Annotated[str | None, typer.Option(help="Only those of this series.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the stored issues, those that changed last first."""
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
        empty="No issue is stored: newsletter issue store FILE",
    )


@app.command("show")
def show(
    slug: Slug,
    revision: Annotated[
        int | None, typer.Option(metavar="N", help="This revision; without it the latest.")
    ] = None,
) -> None:
    """Print the text of a stored issue; where it stands is told on stderr."""
    with reading(Container(load()).database) as session:
        issue = store.find(session, slug)
        latest = store.revision_of(session, issue)
        chosen = store.revision_of(session, issue, revision)
    of = "" if chosen.number == latest.number else f" of {latest.number}"
    err.print(
        f"{slug}, revision {chosen.number}{of} by {shown(chosen.author or 'somebody')}, "
        f"{shown(chosen.created_at)}. The issue is {approval.WORDS[IssueState(issue.state)]}.",
    )
    # As it is in a file; on a terminal its control characters may steer nothing.
    text = chosen.source
    if out.is_terminal:
        text = "\n".join(shown(line) if line else "" for line in text.split("\n"))
    typer.echo(text, nl=not text.endswith("\n"))


@app.command("history")
def history(slug: Slug, as_json: AsJson = False) -> None:
    """List an issue's revisions and what was said of them, the first one first."""
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
    """Ask for a review of the latest revision."""
    with transaction(Container(load()).database) as session:
        number = approval.request(session, slug, by=who(), now=datetime.now(UTC), note=note).number
    out.print(
        f"{slug} is in review. Who has read it: newsletter issue approve {slug} --revision {number}"
    )


@app.command("approve")
def approve(
    slug: Slug,
    revision: Annotated[int, typer.Option(metavar="N", help="The revision that you have read.")],
    note: Note = "",
) -> None:
    """Say that an issue may be sent, as this revision has it."""
    parts = Container(load())
    with reading(parts.database) as session:
        source = store.revision_of(session, store.find(session, slug)).source
    # What cannot be rendered without losing a word is not approved.
    parts.checker.examine_text(source, name=f"{slug}.md")
    with transaction(parts.database) as session:
        approval.approve(
            session,
            slug,
            revision=revision,
            by=who(),
            now=datetime.now(UTC),
            note=note,
            second_person=parts.settings.review.second_person,
        )
    out.print(f"{slug} is approved. Send it: newsletter send {slug} --segment NAME")


@app.command("return")
def return_to_draft(
    slug: Slug,
    note: Annotated[str, typer.Option(help="What should be different.")],
) -> None:
    """Ask for changes, or take an approval back; sends that exist keep their words."""
    with transaction(Container(load()).database) as session:
        approval.return_to_draft(session, slug, by=who(), now=datetime.now(UTC), note=note)
    out.print(f"{slug} is a draft again.")
