"""`newsletter alerts`: what rules of the circuit breaker would have done to past sends."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from newsletter import durations
from newsletter.cli.output import err, out, rows
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.settings.load import load
from newsletter.tracking.breaker_backtest import Backtest, backtest, beside_each_other, percent
from newsletter.tracking.breaker_rules import load_rules

app = typer.Typer(help="Try rules of the circuit breaker on past sends.", no_args_is_help=True)

_TOO_MANY = 1
_NOW, _NEW = "now", "new"


@app.callback()
def _group() -> None:
    """Try rules of the circuit breaker on past sends."""


@app.command("backtest")
def run(
    since: Annotated[str, typer.Option(help="How far back, such as 90d.")] = "90d",
    rules: Annotated[
        Path | None,
        typer.Option(help="A file with new rules, to compare with those of the settings."),
    ] = None,
    limit: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="Exit with 1 if new rules would have paused more percent of sends."
        ),
    ] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Say which past sends each rule would have paused or told of, when, and whether in vain.

    It applies the rules to the recorded events, by the time at which they were received. Nothing
    is changed.
    """
    try:
        length = durations.parse(since)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    container = Container(load())
    versions = {_NOW: container.breaker_rules}
    if rules is not None:
        versions[_NEW] = load_rules(rules)
    with reading(container.database) as session:
        start = datetime.now(UTC) - length
        results = {name: backtest(session, of, since=start) for name, of in versions.items()}
    if as_json:
        rows(_records(results), [], as_json=True, empty="")
    else:
        _print(results, since)
    changed = results.get(_NEW)
    if changed is not None and changed.paused_percent > limit:
        err.print(
            f"The new rules would have paused {len(changed.paused_sends):,} of"
            f" {_sends(changed.sends)}, more than {limit:g} %."
        )
        raise typer.Exit(_TOO_MANY)


def _records(results: dict[str, Backtest]) -> list[dict[str, Any]]:
    return [
        {
            "version": version,
            "rule": rule.name,
            "action": rule.action,
            "sends": result.sends,
            "sends_without_events": result.without_events,
            "pauses": [
                {**asdict(pause), "share": pause.share, "saved": pause.saved}
                for pause in result.pauses[rule.name]
            ],
        }
        for version, result in results.items()
        for rule in result.rules
    ]


def _print(results: dict[str, Backtest], since: str) -> None:
    first = results[_NOW]
    left_out = (
        f", and {first.without_events:,} not judged because their events are deleted"
        if first.without_events
        else ""
    )
    out.print(f"Judged {_sends(first.sends)} of the last {since}{left_out}.")
    columns = ["rule", "version", "action", "limit", "sends", "emails saved", "in vain"]
    rows(
        [
            {
                "rule": rule.name,
                "version": version,
                "action": rule.action,
                "limit": rule.limit,
                "sends": len(pauses),
                "emails saved": sum(pause.saved for pause in pauses),
                "in vain": sum(pause.in_vain for pause in pauses),
            }
            for rule, version, pauses in beside_each_other(results)
        ],
        columns,
        as_json=False,
        empty="There are no rules.",
    )
    sends = [
        {
            "send": f"{pause.send_id} ({pause.slug})",
            "rule": rule.name,
            "version": version,
            "action": rule.action,
            "after": f"{pause.accepted:,} of {pause.accepted_in_all:,}",
            "mail domain": pause.where,
            "share": percent(pause.share),
            "saved": pause.saved,
            "in vain": "yes" if pause.in_vain else "no",
        }
        for rule, version, pauses in beside_each_other(results)
        for pause in pauses
    ]
    if sends:
        out.print()
        rows(sends, list(sends[0]), as_json=False, empty="")


def _sends(number: int) -> str:
    return f"{number:,} send{'' if number == 1 else 's'}"
