"""`newsletter stats`: results of sends, and verification of the stored counters."""

import sys
from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer

from newsletter.cli.output import err, facts, out, rows, stream
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.dialect import with_snapshots
from newsletter.db.engine import reading
from newsletter.errors import UserError
from newsletter.sending.queries import send_status
from newsletter.settings.load import load
from newsletter.tracking.stats import counters, csv_tables, recipient_actions
from newsletter.tracking.stats import rates as send_rates
from newsletter.tracking.stats import verify as verify_counters
from newsletter.tracking.stats.recipient_actions import ActiveRecipient, RecipientAction

app = typer.Typer(help="Show the results of sends, and verify the counters.", no_args_is_help=True)

#: Labels of the counters, in the order in which the events happen.
_FIGURES = {
    "delivered": "delivered",
    "deferrals": "deferred",
    "bounced": "bounce",
    "blocked": "blocked",
    "dropped": "dropped",
    "recipients who opened": "opened",
    "opens": "open",
    "opens by machines": "machine_open",
    "recipients who clicked": "clicked",
    "clicks": "click",
    "clicks by machines": "machine_click",
    "clicks on own links": "own_click",
    "recipients who unsubscribed": "left",
    "recipients who complained": "complained",
}
_RATES = {
    "delivery rate": "delivered",
    "bounce rate": "bounced",
    "block rate": "blocked",
    "open rate": "opened",
    "click rate": "clicked",
    "click-to-open rate": "clicked_of_openers",
    "opens per email": "opens",
    "clicks per email": "clicks",
    "unsubscribe rate": "unsubscribed",
    "complaint rate": "complained",
}
_OF_DOMAIN = ["delivered", "bounced", "blocked", "opened", "clicked", "unsubscribed", "complained"]
_UNMEASURED = "not measured"
#: Longer tables are for --json.
_LINES = 20


@app.command("show")
def show(
    number: Annotated[int, typer.Argument(metavar="SEND", help="The send's number.")],
    as_json: AsJson = False,
) -> None:
    """Show the counts and rates of a send, by email domain and by link.

    docs/reference/metrics.md defines them.
    """
    with reading(with_snapshots(Container(load()).database)) as session:
        whole = send_rates.of_send(session, number)
        domains = send_rates.by_domain(session, number)
        links = send_rates.by_link(session, number)
        days = counters.of_parts(session, number, "day")
    tracked = whole.tracked
    if as_json:
        record = {
            "send": number,
            "sent": whole.sent,
            "tracked": asdict(tracked),
            "figures": send_rates.measured_counters(whole.figures, tracked),
            "rates": asdict(whole.rates),
            "domains": {
                domain: {
                    "sent": one.sent,
                    "figures": send_rates.measured_counters(one.figures, tracked),
                    "rates": asdict(one.rates),
                }
                for domain, one in domains.items()
            },
            "links": links if tracked.clicks else None,
            "days": {
                day: send_rates.measured_counters(of_day, tracked) for day, of_day in days.items()
            },
        }
        rows([record], [], as_json=True, empty="")
        return
    rates = asdict(whole.rates)
    facts(
        [
            ("sent", whole.sent),
            ("tracked", tracked.words),
            *(
                (name, whole.figures.get(what, 0) if whole.measures(what) else _UNMEASURED)
                for name, what in _FIGURES.items()
            ),
            *(
                (name, _percent(rates[rate]) if whole.measures(rate) else _UNMEASURED)
                for name, rate in _RATES.items()
            ),
        ],
        title=f"send {number}",
    )
    out.print()
    by_domain = [
        {
            "domain": domain,
            "sent": one.sent,
            **{
                rate: _percent(asdict(one.rates)[rate]) if one.measures(rate) else _UNMEASURED
                for rate in _OF_DOMAIN
            },
        }
        for domain, one in domains.items()
    ]
    _table(by_domain, ["domain", "sent", *_OF_DOMAIN], "There are no events by domain yet.")
    out.print()
    if not tracked.clicks:
        err.print("Clicks are not measured in this send.")
        return
    by_link = [
        {
            "link": link,
            "recipients": figures.get("clicked", 0),
            "clicks": figures.get("click", 0),
            "by machines": figures.get("machine_click", 0),
        }
        for link, figures in links.items()
    ]
    _table(by_link, ["link", "recipients", "clicks", "by machines"], "No link was clicked yet.")


@app.command("recipients")
def recipients(
    number: Annotated[int, typer.Argument(metavar="SEND", help="The send's number.")],
    opened: Annotated[bool, typer.Option("--opened", help="Those who opened.")] = False,
    clicked: Annotated[bool, typer.Option("--clicked", help="Those who clicked a link.")] = False,
    link: Annotated[
        str | None, typer.Option(metavar="URL", help="Those who clicked this link.")
    ] = None,
    not_opened: Annotated[
        bool, typer.Option("--not-opened", help="Those who received it and did not open.")
    ] = False,
    bounced: Annotated[bool, typer.Option("--bounced", help="Those whose email bounced.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all of them as CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the recipients who opened, clicked, did not open or bounced.

    Opens and clicks by bots do not count, as in the figures. What the send did not track is an
    error, not an empty list.
    """
    chosen = [
        action
        for action, is_chosen in (
            (RecipientAction.OPENED, opened),
            (RecipientAction.CLICKED, clicked or link is not None),
            (RecipientAction.NOT_OPENED, not_opened),
            (RecipientAction.BOUNCED, bounced),
        )
        if is_chosen
    ]
    if len(chosen) != 1 or (as_csv and as_json):
        raise UserError(
            "choose one list, and one form of it",
            place="stats recipients",
            hint="--opened, --clicked, --link URL, --not-opened or --bounced; --csv or --json",
        )
    (action,) = chosen
    database = Container(load()).database
    with reading(database) as session:
        send = send_status.find(session, number)
        if (why_not := recipient_actions.unavailable(session, send, action)) is not None:
            raise why_not
        if link is not None:
            recipient_actions.require_link(session, send, link)
        session.expunge(send)
    people = recipient_actions.everyone(database, send, action, link=link or "")
    if as_csv:
        for lines in csv_tables.recipients(people):
            sys.stdout.write(lines)
        return
    columns = ["subscriber", "email", "status", "times", "links"]
    if action is not RecipientAction.CLICKED:
        columns[-1] = "reason"
    if as_json:
        records = (_record(one) | {"links": one.links} for one in people)
        stream(records, columns, as_json=True, empty="")
        return
    first = [
        _record(one) | {"email": one.email or "(erased)", "links": " ".join(one.links)}
        for one in islice(people, _LINES)
    ]
    rows(first, columns, as_json=False, empty="There are no such recipients.")
    if next(people, None) is not None:
        out.print("… and more: --csv or --json", style="dim")


def _record(one: ActiveRecipient) -> dict[str, object]:
    return {
        "subscriber": one.id,
        "email": one.email,
        "status": one.state,
        "reason": one.reason,
        "times": one.times,
    }


@app.command("verify")
def verify(
    number: Annotated[
        int | None, typer.Argument(metavar="SEND", help="Only this send; by default all sends.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the events again and compare; exits with 1 when a stored counter differs."""
    with reading(with_snapshots(Container(load()).database)) as session:
        numbers = verify_counters.sends(session) if number is None else [number]
        found = [
            asdict(one) for send in numbers for one in verify_counters.differences(session, send)
        ]
    if found:
        columns = ["send_id", "part", "value", "what", "kept", "recounted"]
        rows(found, columns, as_json=as_json, empty="")
        raise typer.Exit(1)
    if not as_json:
        sends = "1 send" if len(numbers) == 1 else f"{len(numbers):,} sends"
        out.print(f"The counters of {sends} match the events.")


def _table(records: list[dict[str, object]], columns: list[str], empty: str) -> None:
    rows(records[:_LINES], columns, as_json=False, empty=empty)
    if len(records) > _LINES:
        out.print(f"… and {len(records) - _LINES:,} more: --json", style="dim")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"
