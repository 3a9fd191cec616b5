"""`newsletter segment`: save, count and index segments."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import facts, out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import SegmentError
from newsletter.issues.parsing.tracking_flags import require_measured
from newsletter.operations import segments as segment_operations
from newsletter.settings.load import load
from subscribers.models import Segment
from subscribers.segments import store as segment_store

app = typer.Typer(help="Save and count segments of subscribers.", no_args_is_help=True)


@app.command("create")
def create(
    name: str,
    expression: Annotated[
        str, typer.Argument(help="A rule such as 'plan == \"pro\"'; empty for all subscribers.")
    ] = "",
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Save a segment."""
    now, container = datetime.now(UTC), Container(load())
    with transaction(container.database) as session:
        segment_operations.create(
            session,
            name,
            expression,
            by=who(),
            now=now,
            tracked=container.tracked,
            description=description,
        )
        number, reachable = segment_store.count(session, expression, now=now)
    out.print(f"Segment {name}: {number:,} subscribers, of whom {reachable:,} can be emailed.")


@app.command("change")
def change(
    name: str,
    new_name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    expression: Annotated[
        str | None, typer.Option("--rule", help="Another rule; empty for all subscribers.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="Another description.")] = None,
) -> None:
    """Rename a segment, or change its rule or description. Omitted options keep their values."""
    container = Container(load())
    with transaction(container.database) as session:
        changed = segment_operations.change(
            session,
            name,
            by=who(),
            now=datetime.now(UTC),
            tracked=container.tracked,
            new_name=new_name,
            expression=expression,
            description=description,
            may_change_audience=True,
        )
        called = changed.name
    out.print(f"Segment {called} is changed.")


@app.command("count")
def count(name: str) -> None:
    """Count the subscribers of a segment, and those who may be emailed."""
    container = Container(load())
    with reading(container.database) as session:
        segment = segment_store.find(session, name)
        require_measured(segment.expression, container.tracked, place=f"segment {name}")
        number, reachable = segment_store.count_of(session, segment, now=datetime.now(UTC))
    facts([("subscribers", number), ("can be emailed", reachable)], title=name)


@app.command("list")
def listed(as_json: AsJson = False) -> None:
    """List the segments."""
    container = Container(load())
    with reading(container.database) as session:
        records = [
            {
                "segment": one.segment.name,
                "subscribers": None if problem else one.people,
                "can be emailed": None if problem else one.mailable,
                "expression": one.segment.expression,
                "problem": problem.message if problem else "",
            }
            for one in segment_store.listing(session, now=datetime.now(UTC))
            for problem in [one.problem or _unmeasured(container, one.segment)]
        ]
    rows(
        records,
        ["segment", "subscribers", "can be emailed", "expression", "problem"],
        as_json=as_json,
        empty="There are no segments yet: newsletter segment create NAME EXPRESSION",
    )


def _unmeasured(container: Container, segment: Segment) -> SegmentError | None:
    try:
        require_measured(segment.expression, container.tracked, place=f"segment {segment.name}")
    except SegmentError as error:
        return error
    return None


@app.command("show")
def show(name: str) -> None:
    """Show a segment's rule, its counts and some of its subscribers."""
    now, container = datetime.now(UTC), Container(load())
    with reading(container.database) as session:
        segment = segment_store.find(session, name)
        require_measured(segment.expression, container.tracked, place=f"segment {name}")
        number, reachable = segment_store.count_of(session, segment, now=now)
        sample = segment_store.sample(session, segment.expression, now=now, limit=10)
        facts(
            [
                ("rule", segment.expression or "everybody"),
                ("description", segment.description),
                ("subscribers", number),
                ("can be emailed", reachable),
                *(("for example", f"{p.email}  {p.exclusion_reason or ''}") for p in sample),
            ],
            title=name,
        )


@app.command("delete")
def delete(name: str) -> None:
    """Delete a segment. Refused while a schedule or an unfinished send uses it."""
    with transaction(Container(load()).database) as session:
        segment_operations.delete(session, name, by=who(), now=datetime.now(UTC))
    out.print(f"Segment {name} is deleted.")


@app.command("index")
def index(
    attribute: Annotated[str, typer.Argument(help="The attribute that rules compare often.")],
    drop: Annotated[bool, typer.Option("--drop", help="Remove the index.")] = False,
) -> None:
    """Index an attribute, so that rules with it are fast on large lists."""
    with transaction(Container(load()).database) as session:
        write = segment_operations.drop_index if drop else segment_operations.create_index
        write(session, attribute, by=who(), now=datetime.now(UTC))
    out.print(f"The index of {attribute} is {'removed' if drop else 'created'}.")
