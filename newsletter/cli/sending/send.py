"""`newsletter send`: send an issue to segments, now or later, with an A/B test if wanted."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Console

from newsletter.checking.planned_send import Plan
from newsletter.cli.actor import stopping, who
from newsletter.cli.content.issues import rendered_by
from newsletter.cli.local_provider import warn_if_silent
from newsletter.cli.output import err, out, shown
from newsletter.cli.sending import pacing_options
from newsletter.cli.sending.check import tell
from newsletter.cli.sending.send_progress import exit_by, run_to_rest, summary
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import SendError
from newsletter.issues import approval
from newsletter.issues.parsing.issue_file import Draft, is_slug, read_issue, with_subject
from newsletter.issues.parsing.tracking_flags import TrackingChoice
from newsletter.rendering.rendered import Rendered
from newsletter.sending import ab_testing
from newsletter.sending.ab_testing import ABTest
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing import timetable_parsing
from newsletter.sending.pacing.sending_windows import clock_note
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.estimate import SendOptions
from newsletter.settings.load import load


def send(
    issue: Annotated[
        str, typer.Argument(help="An issue file, or the slug of a saved and approved issue.")
    ],
    segment: Annotated[list[str], typer.Option(help="Send to this segment; repeatable.")],
    exclude: Annotated[
        list[str] | None,
        typer.Option("--except", help="Exclude this segment; repeatable."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="ISO time, e.g. 2026-04-01T07:00+02:00; local without a zone. "
            "With --local-time a day.",
        ),
    ] = None,
    rate: pacing_options.Rate = None,
    per_hour: pacing_options.PerHour = None,
    per_day: pacing_options.PerDay = None,
    local_time: pacing_options.LocalTime = None,
    quiet: pacing_options.Quiet = None,
    window: pacing_options.Window = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(help="A/B test: the same issue with this subject; repeatable."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="A/B test: another issue, as a file or a slug; repeatable."),
    ] = None,
    sample: Annotated[
        str,
        typer.Option(
            metavar="SHARE", help="A/B test: the share of recipients who get the variants first."
        ),
    ] = ab_testing.SAMPLE,
    winner: Annotated[
        str,
        typer.Option(metavar="BY", help="A/B test: choose the winner by opens, clicks or me."),
    ] = ab_testing.WINNER,
    after: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="A/B test: the time from the sample to the choice of the winner."
        ),
    ] = ab_testing.AFTER,
    clicks: pacing_options.Clicks = None,
    opens: pacing_options.Opens = None,
    same_issue: Annotated[
        bool,
        typer.Option(
            "--same-issue",
            help="Send this text to those without the issue, although an earlier text differs.",
        ),
    ] = False,
    despite_findings: Annotated[
        bool,
        typer.Option("--despite-findings", help="Send although a blocking check reports an error."),
    ] = False,
) -> None:
    """Send an issue to segments: now, or at a time through the running service."""
    container, names = Container(load()), pacing_options.NAMES
    now = datetime.now(UTC)
    zone = ZoneInfo(container.settings.site.timezone)
    start, day = timetable_parsing.parse_start(at, local_time, names=names, now=now, zone=zone)
    if note := clock_note(at or "", zone):
        err.print(note)
    timetable = pacing_options.timetable(
        container,
        rate=rate,
        per_hour=per_hour,
        per_day=per_day,
        local_time=local_time,
        local_date=day,
        quiet=quiet,
        window=window,
    )
    # Whatever a send needs is looked at before anything is written.
    _ = container.gateway, container.links
    container.compare_departures()
    draft, base = _chosen(container, issue)
    rendered = rendered_by(container, draft)
    variants = [
        *(with_subject(draft, words, place=names["subject"]) for words in subject or ()),
        *(_chosen(container, other)[0] for other in variant or ()),
    ]
    test = ab_testing.parse_test(
        len(variants), names=names, sample=sample, winner=winner, after=after
    )
    others = [(one, rendered_by(container, one)) for one in variants]
    if not despite_findings:
        plan = partial(
            Plan,
            segments=segment,
            excluded=exclude or (),
            timetable=timetable,
            batch_size=container.settings.sending.batch_size,
            warm_up=container.warm_up,
        )
        _refuse_findings(container, [(draft, rendered), *others], plan, now)
    options = SendOptions(
        excluded=exclude or (),
        timetable=timetable,
        others=others,
        test=test,
        same_issue=same_issue,
        despite_findings=despite_findings,
        batch_size=container.settings.sending.batch_size,
        warm_up=container.warm_up,
        tracking=TrackingChoice(clicks, opens),
        publication=container.tracked,
    )
    with stopping() as stop, container.writing_traces():
        with transaction(container.database) as session:
            made = send_lifecycle.create(
                session,
                draft,
                rendered,
                segment,
                by=who(),
                at=start,
                now=now,
                options=options,
                approved_by=container.approver(who()),
                base=base,
            )
        if made.last_at > max(start, now) and not options.test:
            err.print(
                f"{made.people:,} people; by its timetable the last leave {shown(made.last_at)}."
            )
        if at or _takes_long(timetable, options.test):
            when = f"is scheduled for {shown(start)}" if at else "starts now"
            out.print(f"Send {made.id} {when}. `newsletter serve` does the work.")
            _tell_publicity(container, made, out)
            return
        _tell_publicity(container, made, err)
        warn_if_silent(container.settings)
        standing = run_to_rest(container, made.id, stop)
    summary(container, standing)
    exit_by(standing)


def _tell_publicity(container: Container, made: send_lifecycle.CreatedSend, where: Console) -> None:
    """Say on stderr whether the issue becomes public, before it is sent."""
    if not container.settings.archive.enabled:
        return
    if made.is_public:
        where.print("Once it is sent, everybody can read it in the public archive.")
    else:
        where.print(
            "It stays out of the public archive; archive: true in its front matter puts it there."
        )


def _chosen(container: Container, issue: str) -> tuple[Draft, int | None]:
    """Read the issue file, or else the saved issue and the number of its revision."""
    if Path(issue).exists() or not is_slug(issue):
        return read_issue(Path(issue)), None
    with reading(container.database) as session:
        found = approval.approved(session, issue)
    return found.draft, found.number


def _takes_long(timetable: Timetable, test: ABTest | None) -> bool:
    """Whether the send lasts longer than a command should run."""
    return bool(test or timetable.by_zone or timetable.per_hour or timetable.per_day)


def _refuse_findings(
    container: Container,
    issues: Sequence[tuple[Draft, Rendered]],
    plan: Callable[[Session], Plan],
    now: datetime,
) -> None:
    """Print all findings; SendError if a blocking check reports an error."""
    for draft, rendered in issues:
        found = container.checker.before_sending(
            draft, rendered, container.database, plan, now=now, dns=container.dns
        )
        for finding in found:
            tell(finding, draft.name, to_stderr=True)
        if found:
            raise SendError(
                "checks found what must be mended first",
                place=draft.name,
                hint=f"See everything: newsletter check {draft.name}. To send it like this: "
                "--despite-findings",
            )
