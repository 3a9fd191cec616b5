"""`newsletter topic`: create and list topics."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.operations import topics as topic_operations
from newsletter.settings.load import load
from subscribers.consent import topics

app = typer.Typer(help="Create topics that subscribers opt in to.", no_args_is_help=True)


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
            {"topic": one.topic.slug, "name": one.topic.name, "subscribers": one.people}
            for one in topics.listing(session)
        ]
    rows(
        records,
        ["topic", "name", "subscribers"],
        as_json=as_json,
        empty="There are no topics yet: newsletter topic create SLUG",
    )
