"""`newsletter doctor`: check this machine, the SendGrid account and DNS."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

import typer
from rich.markup import escape

from newsletter.backups.take import latest as latest_backup
from newsletter.cli.output import err, out, rows, shown
from newsletter.cli.service.settings import AsJson
from newsletter.container import Container
from newsletter.db.engine import beside, is_missing_file, open_database, sqlite_file
from newsletter.doctor import account as account_findings
from newsletter.doctor import dns as dns_findings
from newsletter.doctor import host as host_findings
from newsletter.doctor import proxy as proxy_findings
from newsletter.doctor import service as service_findings
from newsletter.doctor.account import DoctorFinding, ExpectedSetup, Verdict
from newsletter.doctor.proxy import Fetch
from newsletter.errors import ProviderError, UserError
from newsletter.issues.parsing.tracking_flags import Tracked
from newsletter.provider.account import Account, Domain
from newsletter.provider.dns_lookups import Lookup, resolver
from newsletter.scheduling.leadership import is_held
from newsletter.settings import publication
from newsletter.settings.load import Settings, load
from subscribers.email_address import address_key as hash_key

_COLUMNS = ["subject", "verdict", "message", "remedy"]
_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}
#: Not the exit code of an error, because the command itself succeeded.
_PROBLEMS = 1


def doctor(as_json: AsJson = False) -> None:
    """Check this machine, the SendGrid account and DNS; change nothing.

    Each finding is ok, a warning or a problem, with what to do about it. The exit code is 1
    when there is a problem. With a sandbox on this machine, DNS is not checked.
    """
    findings = list(examine(load(), resolver()))
    if as_json or not out.is_terminal:
        rows([asdict(finding) for finding in findings], _COLUMNS, as_json=as_json, empty="")
    else:
        for finding in findings:
            _show(finding)
    problems = sum(finding.verdict is Verdict.PROBLEM for finding in findings)
    warnings = sum(finding.verdict is Verdict.WARNING for finding in findings)
    err.print(f"{len(findings)} checks: {problems} problems, {warnings} warnings.")
    if problems:
        raise typer.Exit(_PROBLEMS)


def examine(
    settings: Settings, lookup: Lookup, fetch: Fetch = proxy_findings.fetch_page
) -> Iterator[DoctorFinding]:
    """All findings, those of this machine first."""
    settings = _in_force(settings)
    container = Container(settings)
    sandbox = container.is_local
    yield from _of_machine(settings)
    if sandbox:
        message = f"a sandbox at {settings.sendgrid.host}: no email leaves, so DNS is not checked"
        yield DoctorFinding("sendgrid.host", Verdict.OK, message)
    else:
        yield DoctorFinding("sendgrid.host", Verdict.OK, settings.sendgrid.host)
        yield dns_findings.of_base_url(lookup, settings.site.base_url)
        yield proxy_findings.of_visitors(settings.site.base_url, fetch)
        yield host_findings.of_postal_address(
            settings.site.postal_address, example=load({}).site.postal_address
        )
    account = None
    if settings.sendgrid.api_key.get_secret_value():
        account = Account(container.provider.ask)
    else:
        remedy = "Create one in SendGrid, with the Mail Send permission: sendgrid.api_key."
        yield DoctorFinding("API key", Verdict.PROBLEM, "not set: no email can be sent", remedy)
    expected = _expected_setup(settings)
    if account is not None:
        yield from account_findings.of_account(account, expected)
    if not sandbox:
        domain = _authenticated(account, expected.sender_domain)
        yield from dns_findings.of_domain(
            lookup, expected.sender_domain, domain, inbound_host=expected.inbound_host
        )


def _in_force(loaded: Settings) -> Settings:
    """The settings with those of the database; a finding reports a database that has trouble."""
    try:
        return publication.applied(loaded, publication.peek(loaded))
    except UserError:
        return loaded


def _of_machine(settings: Settings) -> Iterator[DoctorFinding]:
    keys = [key.get_secret_value() for key in settings.links.keys]
    address_key = settings.subscribers.address_key.get_secret_value()
    yield from host_findings.of_keys(
        link_keys=len(keys), address_key=bool(address_key), shared=address_key in keys
    )
    yield host_findings.of_time_zones()
    folder = settings.sending.departure_log
    yield host_findings.of_departure_log_folder(
        beside(settings.database_url, folder) if folder else None
    )
    if folder:
        path = beside(settings.database_url, folder)
        yield service_findings.of_disk_space("the departure log", path)
    if (backup := settings.backup).folder:
        latest = latest_backup(beside(settings.database_url, backup.folder), now=datetime.now(UTC))
        yield host_findings.of_backups(latest, every=backup.every, now=datetime.now(UTC))
    if is_missing_file(settings.database_url):
        yield DoctorFinding("database", Verdict.OK, "none yet; the first command creates it")
        return
    try:
        engine = open_database(settings.database_url)
    except UserError as error:
        yield DoctorFinding("database", Verdict.PROBLEM, error.message, error.hint or "")
        return
    if (file := sqlite_file(settings.database_url)) is not None:
        yield service_findings.of_disk_space("the database", file.parent)
    yield (version := host_findings.of_database(engine))
    if version.verdict is Verdict.OK:
        if address_key:
            yield host_findings.of_address_key(engine, hash_key(address_key))
        yield host_findings.of_departure_logs(engine)
        held = is_held(engine)
        yield service_findings.of_clock(held=held, otherwise=Verdict.WARNING)
        yield service_findings.of_sending(engine, now=datetime.now(UTC))
        every = settings.tracking.reconcile_every
        yield host_findings.of_reconciling(engine, every=every, now=datetime.now(UTC))
    engine.dispose()


def _expected_setup(settings: Settings) -> ExpectedSetup:
    base, inbound = settings.site.base_url, settings.inbound
    return ExpectedSetup(
        events_url=f"{base}/webhooks/sendgrid/events",
        webhook_keys=settings.sendgrid.webhook_public_keys,
        sender_domain=settings.sender.email.rpartition("@")[2].lower(),
        tracked=Tracked(clicks=settings.tracking.clicks, opens=settings.tracking.opens),
        inbound_host=inbound.address.rpartition("@")[2].lower(),
        inbound_url=f"{base}/webhooks/sendgrid/inbound/{inbound.key.get_secret_value()}",
    )


def _authenticated(account: Account | None, name: str) -> Domain | None:
    """The account's authenticated domains, for their DNS names. Errors were reported before."""
    try:
        return account_findings.authenticated(account, name) if account is not None else None
    except ProviderError:
        return None


def _show(finding: DoctorFinding) -> None:
    colour = _COLOURS.get(finding.verdict, "dim")
    verdict = f"[{colour}]{finding.verdict:>9}[/{colour}]"
    out.print(
        f"{verdict}  [bold]{escape(finding.subject)}[/bold]: {escape(shown(finding.message))}",
        markup=True,
    )
    if finding.remedy:
        out.print(f"{'':>11}{shown(finding.remedy)}", style="dim")
