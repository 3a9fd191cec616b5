"""`newsletter topic`: create, change, list and delete topics."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.operations import topics as topic_operations
from newsletter.operations.topics import TopicUsage
from newsletter.settings.load import load
from subscribers.consent import topics

app = typer.Typer(help="Create and change topics that subscribers opt in to.", no_args_is_help=True)

Slug = Annotated[str, typer.Argument(help="The topic's slug.")]


@app.command("create")
def create(
    slug: Annotated[str, typer.Argument(help="The name in issue files: a-z, 0-9 and hyphens.")],
    name: Annotated[
        str, typer.Option(help="The name that subscribers read; by default the slug.")
    ] = "",
    description: Annotated[str, typer.Option(help="One line of description for forms.")] = "",
) -> None:
    """Create a topic. An issue with topics goes only to subscribers of one of them."""
    with transaction(Container(load()).database) as session:
        topic_operations.create(
            session, slug, by=who(), now=datetime.now(UTC), name=name, description=description
        )
    out.print(
        f"Topic {slug} is created. It has no subscribers yet: an issue on it goes only to "
        "subscribers who choose it, or have it in an imported list."
    )


@app.command("list")
def listed(as_json: AsJson = False) -> None:
    """List the topics and the number of subscribers of each."""
    with reading(Container(load()).database) as session:
        records = [
            {
                "topic": one.topic.slug,
                "name": one.topic.name,
                "subscribers": one.people,
                "hidden": one.topic.hidden,
            }
            for one in topics.listing(session)
        ]
    rows(
        records,
        ["topic", "name", "subscribers", "hidden"],
        as_json=as_json,
        empty="There are no topics yet: newsletter topic create SLUG",
    )


@app.command("change")
def change(
    slug: Slug,
    name: Annotated[str | None, typer.Option(help="Another name that subscribers read.")] = None,
    description: Annotated[str | None, typer.Option(help="Another description.")] = None,
    place: Annotated[
        int | None, typer.Option(help="Its place in the order of the topics; 1 is first.", min=1)
    ] = None,
    hidden: Annotated[
        bool | None,
        typer.Option("--hide/--show", help="Whether public pages offer it to new subscribers."),
    ] = None,
) -> None:
    """Rename, describe, order or hide a topic. Omitted options keep their values."""
    with transaction(Container(load()).database) as session:
        changed = topic_operations.change(
            session,
            slug,
            by=who(),
            now=datetime.now(UTC),
            name=name,
            description=description,
            place=place,
            hidden=hidden,
        )
    out.print(f"Topic {slug}: {', '.join(changed) or 'nothing'} changed.")


@app.command("delete")
def delete(
    slug: Slug,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a topic. Refused while a segment or an unfinished send needs it."""
    container = Container(load())
    with reading(container.database) as session:
        used = topic_operations.usage(session, topics.find(session, slug))
    if not used.needed:
        err.print(_lost(slug, used))
        if not yes and not typer.confirm("This cannot be undone. Delete this topic?", err=True):
            raise typer.Exit(1)
    with transaction(container.database) as session:
        topic_operations.delete(session, slug, by=who(), now=datetime.now(UTC))
    out.print(f"Topic {slug} is deleted.")


def _lost(slug: str, used: TopicUsage) -> str:
    lost = f"Subscribers who chose {slug} and lose it: {used.subscribers:,}."
    if not used.issues:
        return lost
    return f"{lost} Issues that cannot be sent until their topics change: {', '.join(used.issues)}."
