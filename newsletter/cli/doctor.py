"""`newsletter doctor`: what stands in the way of mail that arrives, and how to mend it."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.markup import escape
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from newsletter.assembly import Assembly
from newsletter.cli.output import err, out, rows, shown
from newsletter.cli.settings import AsJson
from newsletter.database import beside, open_database
from newsletter.errors import ProviderError, UserError
from newsletter.issues.tracked import Tracked
from newsletter.provider.account import Account, Domain
from newsletter.provider.lookups import Lookup, resolver
from newsletter.settings import Settings, load
from newsletter.tracking import checkup, checkup_domain, checkup_machine, checkup_proxy
from newsletter.tracking.checkup import Finding, Verdict, Wanted
from newsletter.tracking.checkup_proxy import Fetch
from subscribers.address import address_key as hash_key

_COLUMNS = ["subject", "verdict", "found", "mend"]
_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}
#: Not one of the codes of errors: the command itself did what it should.
_PROBLEMS = 1


def doctor(as_json: AsJson = False) -> None:
    """Look at this machine, SendGrid's account and DNS; change nothing.

    Each finding is ok, a warning or a problem, with what to do about it. The exit code is 1
    when there is a problem. With a sandbox on this machine, DNS is not asked.
    """
    findings = list(examine(load(), resolver()))
    if as_json or not out.is_terminal:
        rows([asdict(finding) for finding in findings], _COLUMNS, as_json=as_json, empty="")
    else:
        for finding in findings:
            _show(finding)
    problems = sum(finding.verdict is Verdict.PROBLEM for finding in findings)
    warnings = sum(finding.verdict is Verdict.WARNING for finding in findings)
    err.print(f"{len(findings)} things looked at: {problems} problems, {warnings} warnings.")
    if problems:
        raise typer.Exit(_PROBLEMS)


def examine(
    settings: Settings, lookup: Lookup, fetch: Fetch = checkup_proxy.fetched
) -> Iterator[Finding]:
    """Every finding, the machine's first."""
    assembly = Assembly(settings)
    sandbox = assembly.is_local
    yield from _of_machine(settings)
    if sandbox:
        found = f"a sandbox at {settings.sendgrid.host}: no mail leaves, so DNS is not asked"
        yield Finding("sendgrid.host", Verdict.OK, found)
    else:
        yield Finding("sendgrid.host", Verdict.OK, settings.sendgrid.host)
        yield checkup_domain.of_base_url(lookup, settings.site.base_url)
        yield checkup_proxy.of_visitors(settings.site.base_url, fetch)
        yield checkup_machine.of_postal_address(
            settings.site.postal_address, example=load({}).site.postal_address
        )
    try:
        account = Account(assembly.provider.ask)
    except UserError as error:
        yield Finding("API key", Verdict.PROBLEM, error.message, error.hint or "")
        account = None
    wanted = _wanted(settings)
    if account is not None:
        yield from checkup.of_account(account, wanted)
    if not sandbox:
        domain = _authenticated(account, wanted.sender_domain)
        yield from checkup_domain.of_domain(
            lookup, wanted.sender_domain, domain, inbound_host=wanted.inbound_host
        )


def _of_machine(settings: Settings) -> Iterator[Finding]:
    keys = [key.get_secret_value() for key in settings.links.keys]
    address_key = settings.subscribers.address_key.get_secret_value()
    yield from checkup_machine.of_keys(
        link_keys=len(keys), address_key=bool(address_key), shared=address_key in keys
    )
    yield checkup_machine.of_time_zones()
    folder = settings.sending.journal
    yield checkup_machine.of_journal(beside(settings.database_url, folder) if folder else None)
    if _is_missing_file(settings.database_url):
        yield Finding("database", Verdict.OK, "there is none yet: the first command makes it")
        return
    try:
        engine = open_database(settings.database_url)
    except UserError as error:
        yield Finding("database", Verdict.PROBLEM, error.message, error.hint or "")
        return
    yield (version := checkup_machine.of_database(engine))
    if version.verdict is Verdict.OK:
        if address_key:
            yield checkup_machine.of_address_key(engine, hash_key(address_key))
        yield checkup_machine.of_departure_logs(engine)
        every = settings.tracking.reconcile_every
        yield checkup_machine.of_reconciling(engine, every=every, now=datetime.now(UTC))
    engine.dispose()


def _wanted(settings: Settings) -> Wanted:
    base, inbound = settings.site.base_url, settings.inbound
    return Wanted(
        events_url=f"{base}/webhooks/sendgrid/events",
        webhook_keys=settings.sendgrid.webhook_public_keys,
        sender_domain=settings.sender.email.rpartition("@")[2].lower(),
        token_url=f"{base}/webhooks/sendgrid/token",
        client_id=settings.sendgrid.webhook_client_id,
        activity=settings.sendgrid.activity,
        tracked=Tracked(clicks=settings.tracking.clicks, opens=settings.tracking.opens),
        inbound_host=inbound.address.rpartition("@")[2].lower(),
        inbound_url=f"{base}/webhooks/sendgrid/inbound/{inbound.key.get_secret_value()}",
    )


def _authenticated(account: Account | None, name: str) -> Domain | None:
    """For the names of its records; that it cannot be asked has been said already."""
    try:
        return checkup.authenticated(account, name) if account is not None else None
    except ProviderError:
        return None


def _is_missing_file(url: str) -> bool:
    """Looking must not make it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return False
    file = parsed.database
    return parsed.get_backend_name() == "sqlite" and bool(file) and not Path(str(file)).exists()


def _show(finding: Finding) -> None:
    colour = _COLOURS.get(finding.verdict, "dim")
    verdict = f"[{colour}]{finding.verdict:>9}[/{colour}]"
    out.print(
        f"{verdict}  [bold]{escape(finding.subject)}[/bold]: {escape(shown(finding.found))}",
        markup=True,
    )
    if finding.mend:
        out.print(f"{'':>11}{shown(finding.mend)}", style="dim")
