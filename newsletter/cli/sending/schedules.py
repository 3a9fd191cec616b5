"""`newsletter schedule`: create and control schedules."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from newsletter.cli.actor import who
from newsletter.cli.output import err, facts, out, rows, shown
from newsletter.cli.sending import pacing_options
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import SendError
from newsletter.issues.parsing.text import read_text
from newsletter.issues.parsing.tracking_flags import TrackingChoice
from newsletter.scheduling import next_run, prepared_issue, recurrence, schedules
from newsletter.scheduling.models import Schedule, ScheduleState
from newsletter.scheduling.recurrence import Occurrence
from newsletter.scheduling.schedules import ScheduleOptions
from newsletter.sending.pacing.timetable import Timetable
from newsletter.settings.load import load

app = typer.Typer(help="Send the issues of a series on a schedule.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Days = Annotated[list[str] | None, typer.Argument(metavar="[DAY]...", help="Days like 2026-12-25.")]
Series = Annotated[str, typer.Option(help="The series whose next approved issue is sent.")]
When = Annotated[
    str,
    typer.Option(
        metavar="RULE",
        help='"daily 07:00", "mon-fri 07:00", "first tuesday 09:00", "last day 18:00", '
        '"day 15 09:00", once "2026-12-01 09:00", or cron "0 7 * * mon-fri".',
    ),
]
Zone = Annotated[str | None, typer.Option(help="IANA time zone of these times (site.timezone).")]
OwnClock = Annotated[
    bool | None,
    typer.Option("--own-clock/--one-clock", help="At these times in each subscriber's time zone."),
]
To = Annotated[list[str], typer.Option(help="Send to this segment; repeatable.")]
Except = Annotated[
    list[str] | None,
    typer.Option("--except", help="Exclude this segment; repeatable."),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(metavar="DAY", help="Send nothing on this day; repeatable."),
]
SkipFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Days to skip, one per line; # starts a comment."),
]


@app.command("create")
def create(
    name: Name,
    series: Series,
    when: When,
    segment: To,
    exclude: Except = None,
    zone: Zone = None,
    own_clock: OwnClock = None,
    skip: Skip = None,
    skip_file: SkipFile = None,
    rate: pacing_options.Rate = None,
    per_hour: pacing_options.PerHour = None,
    per_day: pacing_options.PerDay = None,
    quiet: pacing_options.Quiet = None,
    window: pacing_options.Window = None,
    clicks: pacing_options.Clicks = None,
    opens: pacing_options.Opens = None,
) -> None:
    """Create a schedule. At each of its times it sends the next approved issue of its series."""
    container, now = Container(load()), datetime.now(UTC)
    wanted = ScheduleOptions(
        name=name,
        series=series,
        rule=when,
        zone=zone or container.settings.site.timezone,
        segments=segment,
        excluded=exclude or (),
        own_clock=bool(own_clock),
        skips=_days(skip, skip_file),
        timetable=pacing_options.timetable(
            container, rate=rate, per_hour=per_hour, per_day=per_day, quiet=quiet, window=window
        ),
        tracking=TrackingChoice(clicks, opens),
    )
    with transaction(container.database) as session:
        schedule = schedules.create(session, wanted, by=who(), now=now)
        waiting = prepared_issue.next_issue(session, series)
        said = _when(schedule)
    out.print(f"Schedule {name}: {said}")
    if waiting is None:
        err.print(
            f"Series {series} has no approved issue that was not sent: as long as that is so, "
            "nothing goes out, and newsletter schedule show says so.",
        )


@app.command("change")
def change(
    name: Name,
    series: Annotated[str | None, typer.Option(help="Another series.")] = None,
    when: Annotated[str | None, typer.Option(metavar="RULE", help="Other times.")] = None,
    segment: Annotated[
        list[str] | None, typer.Option(help="Send to this segment instead; repeatable.")
    ] = None,
    exclude: Except = None,
    zone: Zone = None,
    own_clock: OwnClock = None,
    new_name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    rate: pacing_options.Rate = None,
    per_hour: pacing_options.PerHour = None,
    per_day: pacing_options.PerDay = None,
    quiet: pacing_options.Quiet = None,
    window: pacing_options.Window = None,
    clicks: pacing_options.Clicks = None,
    opens: pacing_options.Opens = None,
) -> None:
    """Change a schedule from now on. Omitted options keep their values.

    The options of the pace change together: name all that are to hold.
    """
    container, now = Container(load()), datetime.now(UTC)
    with transaction(container.database) as session:
        before = schedules.options_of(session, schedules.find(session, name))
        given: dict[str, Any] = {
            "name": new_name,
            "series": series,
            "rule": when,
            "zone": zone,
            "segments": segment or None,
            "excluded": exclude or None,
            "own_clock": own_clock,
        }
        if rate or per_hour or per_day or quiet is not None or window:
            given["timetable"] = pacing_options.timetable(
                container, rate=rate, per_hour=per_hour, per_day=per_day, quiet=quiet, window=window
            )
        given["tracking"] = TrackingChoice(
            before.tracking.clicks if clicks is None else clicks,
            before.tracking.opens if opens is None else opens,
        )
        wanted = replace(before, **{key: one for key, one in given.items() if one is not None})
        schedule = schedules.change(session, name, wanted, by=who(), now=now)
        said = _when(schedule)
    out.print(f"Schedule {wanted.name}: {said}")


@app.command("list")
def listed(as_json: AsJson = False) -> None:
    """List the schedules and the result of the latest run of each."""
    with reading(Container(load()).database) as session:
        records = [
            {
                "schedule": one.name,
                "series": one.series,
                "when": one.rule,
                "zone": _zone(one),
                "segments": ", ".join(audience.segments),
                "state": one.state,
                "next": next_run.next_send(one),
                "last": last.outcome if last else "",
                "reason": last.reason if last else "",
            }
            for one, audience, last in schedules.list_all(session)
        ]
    columns = "schedule series when zone segments state next last reason".split()
    empty = "There are no schedules yet: newsletter schedule create --help"
    rows(records, columns, as_json=as_json, empty=empty)


_PUBLIC = "its issues, once sent, unless one says archive: false"
_NOT_PUBLIC = "only issues that say archive: true"


@app.command("show")
def show(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many runs.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show a schedule and the results of its runs."""
    with reading(Container(load()).database) as session:
        one = schedules.find(session, name)
        audience = schedules.audience(session, one.id)
        waiting = prepared_issue.next_issue(session, one.series)
        to_all = schedules.goes_to_all(session, one.id)
        past = [
            {
                "due": run.due_at,
                "outcome": run.outcome,
                "send": run.send_id or "",
                "reason": run.reason,
            }
            for run in schedules.runs(session, one.id, limit=limit)
        ]
        if not as_json:
            facts(
                [
                    ("state", one.state),
                    ("series", one.series),
                    ("next issue", waiting.slug if waiting else "none is approved"),
                    ("when", f"{one.rule} ({next_run.rule_of(one).description})"),
                    ("zone", _zone(one)),
                    ("next", next_run.next_send(one)),
                    ("segments", ", ".join(audience.segments)),
                    ("excluded", ", ".join(audience.excluded)),
                    ("public archive", _PUBLIC if to_all else _NOT_PUBLIC),
                    ("skipped days", ", ".join(one.skips)),
                    ("clicks", _measured(one.track_clicks)),
                    ("opens", _measured(one.track_opens)),
                    ("pace", Timetable.from_json(one.timetable).description),
                ],
                title=name,
            )
    empty = "It has not run yet."
    rows(past, ["due", "outcome", "send", "reason"], as_json=as_json, empty=empty)


@app.command("next")
def coming(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A schedule, or else --when.")
    ] = None,
    when: Annotated[
        str | None, typer.Option(metavar="RULE", help="Times to try, as in create.")
    ] = None,
    zone: Zone = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the next times of a schedule or of a rule, with the effect of clock changes."""
    if (name is None) == (when is None):
        raise SendError("name a schedule, or a rule with --when", place="schedule next")
    container, now = Container(load()), datetime.now(UTC)
    place, skips = recurrence.find_zone(zone or container.settings.site.timezone), list[str]()
    if when is not None:
        rule = recurrence.parse(when, place="--when")
        found = recurrence.first(recurrence.occurrences(rule, place, after=now), count)
    else:
        with reading(container.database) as session:
            one = schedules.find(session, name or "")
            if one.state != ScheduleState.ACTIVE:
                err.print(f"It is {one.state}: none of these runs happens before it is resumed.")
            place, skips = next_run.zone_of(one), one.skips
            found = recurrence.first(next_run.upcoming(one, after=now), count)
    records = [
        {
            "day": f"{occurring.due.astimezone(place):%a %Y-%m-%d}",
            "time": occurring.due.astimezone(place).isoformat(timespec="minutes")[11:],
            "utc": f"{occurring.due.astimezone(UTC):%Y-%m-%dT%H:%MZ}",
            "note": _note(occurring, skips),
        }
        for occurring in found
    ]
    rows(records, ["day", "time", "utc", "note"], as_json=as_json, empty="It has no further runs.")


@app.command("pause")
def pause(name: Name) -> None:
    """Pause a schedule. Its sends under way continue."""
    with transaction(Container(load()).database) as session:
        schedules.pause(session, name, by=who(), now=datetime.now(UTC))
    out.print(f"Schedule {name} is paused. Runs that become due meanwhile are skipped.")


@app.command("resume")
def resume(name: Name) -> None:
    """Resume a schedule. Runs that became due meanwhile are skipped."""
    with transaction(Container(load()).database) as session:
        following = schedules.resume(session, name, by=who(), now=datetime.now(UTC))
    said = f"continues: next run {shown(following)}" if following else "has ended: its day is past"
    out.print(f"Schedule {name} {said}.")


@app.command("skip")
def skip(
    name: Name,
    days: Days = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Days to skip, one per line; # starts a comment."),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Do not skip these days.")] = False,
) -> None:
    """Skip days; without arguments, the next day on which it is due."""
    named, now = _days(days, file), datetime.now(UTC)
    if undo and not named:
        raise SendError("name the days to send on after all", place="schedule skip --undo")
    with transaction(Container(load()).database) as session:
        if undo:
            schedules.unskip(session, name, named, by=who(), now=now)
        else:
            named = schedules.skip(session, name, named, by=who(), now=now)
    said = ", ".join(day.isoformat() for day in named)
    out.print(f"Schedule {name} {'sends on' if undo else 'skips'} {said}.")


@app.command("delete")
def delete(name: Name) -> None:
    """Delete a schedule and the results of its runs. Its sends stay."""
    with transaction(Container(load()).database) as session:
        schedules.remove(session, name, by=who(), now=datetime.now(UTC))
    out.print(f"Schedule {name} is deleted. Sends that it made stay as they are.")


def _days(named: list[str] | None, file: Path | None) -> list[date]:
    days = recurrence.parse_dates("\n".join(named or ()), place="days")
    if file is not None:
        days += recurrence.parse_dates(read_text(file), place=str(file))
    return sorted(set(days))


def _measured(said: bool | None) -> str:
    if said is None:
        return "as the issue says"
    return "measured" if said else "not measured"


def _zone(schedule: Schedule) -> str:
    return "each recipient's own" if schedule.own_clock else schedule.zone


def _when(schedule: Schedule) -> str:
    following = next_run.next_send(schedule)
    coming = f"next {shown(following)}" if following else schedule.state
    return f"{next_run.rule_of(schedule).description} ({_zone(schedule)}); {coming}."


def _note(occurring: Occurrence, skips: list[str]) -> str:
    skipped = "skipped" if occurring.wall.date().isoformat() in skips else ""
    return "; ".join(filter(None, (skipped, occurring.note)))
