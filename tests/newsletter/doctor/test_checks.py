"""The doctor finds what is wrong, says how to mend it, and never falls over what it looks at."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from newsletter.cli.service.doctor import examine
from newsletter.db.engine import open_database, transaction
from newsletter.doctor import dns as dns_findings
from newsletter.doctor import host as host_findings
from newsletter.doctor.account import DoctorFinding, ExpectedSetup, Verdict, of_account
from newsletter.provider.account import Account, Domain, TryAgainError
from newsletter.provider.dns_lookups import Lookup, UnaskedError
from newsletter.provider.sendgrid import SendGridGateway
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.settings.load import load
from newsletter.tracking.models import Reconciliation
from tests.conftest import NOW

OK, WARNING, PROBLEM, UNKNOWN = Verdict
EVENTS = "https://news.example.com/webhooks/sendgrid/events"
SETTINGS = "user/webhooks/event/settings"
DOMAIN = Domain(
    "example.com",
    True,
    (
        ("cname", "em1.example.com"),
        ("cname", "s1._domainkey.example.com"),
        ("cname", "s2._domainkey.example.com"),
    ),
)
KEY = "k=rsa; t=s; p=MIGf"
HEALTHY = {
    ("_dmarc.example.com", "TXT"): ["v=DMARC1; p=quarantine; rua=mailto:a@example.com"],
    ("s1._domainkey.example.com", "TXT"): [KEY],
    ("s2._domainkey.example.com", "TXT"): [KEY],
    ("em1.example.com", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    ("in.example.com", "MX"): ["mx.sendgrid.net"],
}


@pytest.fixture(scope="module")
def _running() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(verified_senders=frozenset({"example.com"}))) as running:
        running.set_webhook_url(EVENTS)
        yield running


@pytest.fixture
def sandbox(_running: RunningSandbox) -> Iterator[RunningSandbox]:
    yield _running
    _running.account = {}


def gateway(sandbox: RunningSandbox, key: str = "SG.sandbox") -> SendGridGateway:
    return SendGridGateway(api_key=key, host=sandbox.url, timeout=timedelta(seconds=5))


def of(sandbox: RunningSandbox, key: str = "SG.sandbox", **wanted: Any) -> dict[str, DoctorFinding]:
    """Subject → the worst finding."""
    terms = {
        "events_url": EVENTS,
        "webhook_keys": [sandbox.public_key],
        "sender_domain": "mail.example.com",
        **wanted,
    }
    found = of_account(Account(gateway(sandbox, key).ask), ExpectedSetup(**terms))
    return {one.subject: one for one in sorted(found, key=lambda one: one.verdict is not OK)}


def test_a_healthy_account_is_all_ok(sandbox: RunningSandbox) -> None:
    found = of(sandbox)
    assert {one.verdict for one in found.values()} == {OK}
    assert [*found] == [
        "API key", "event webhook", "webhook's signature", "sender's domain", "tracking",
    ]  # fmt: skip


HOOK = {
    "id": "7",
    "url": EVENTS,
    "enabled": True,
    **dict.fromkeys(["delivered", "bounce", "dropped", "spam_report", "unsubscribe"], True),
    **dict.fromkeys(["group_unsubscribe", "processed", "deferred", "open", "click"], True),
}


def hooks(*rows: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{SETTINGS}/all": {"webhooks": rows}}


ELSEWHERE = {**HOOK, "url": "https://user:secret@other.example/x"}
INBOUND = "user/webhooks/parse/settings"
WRONG_HOST = {"result": [{"hostname": "in.example.com", "url": "https://other.example/key"}]}


@pytest.mark.parametrize(
    ("account", "subject", "verdict", "words"),
    [
        ({"scopes": {"scopes": ["alerts.read"]}}, "API key", PROBLEM, "mail.send"),
        ({"scopes": {"scopes": ["mail.send", "asm.x"]}}, "API key", WARNING, "lacks every scope"),
        ({"scopes": 403}, "API key", OK, "cannot be read"),
        (hooks(), "event webhook", PROBLEM, f"none posts to {EVENTS}"),
        (hooks(ELSEWHERE), "event webhook", PROBLEM, "other.example"),
        (hooks({**HOOK, "enabled": False}), "event webhook", PROBLEM, "switched off"),
        (hooks({**HOOK, "spam_report": False}), "event webhook", PROBLEM, "spam_report"),
        (hooks({**HOOK, "click": False}), "event webhook", WARNING, "click"),
        ({f"{SETTINGS}/all": 403}, "event webhook", UNKNOWN, "may not read"),
        ({f"{SETTINGS}/all": 503}, "event webhook", UNKNOWN, "503"),
        ({f"{SETTINGS}/all": {"webhooks": "?"}}, "event webhook", PROBLEM, "unexpected answer"),
        (
            {f"{SETTINGS}/signed/sandbox": {"public_key": ""}},
            "webhook's signature",
            PROBLEM,
            "not signed",
        ),
        ({f"{SETTINGS}/signed/sandbox": 404}, "webhook's signature", PROBLEM, "not signed"),
        (
            {f"{SETTINGS}/signed/sandbox": {"public_key": "MFkw"}},
            "webhook's signature",
            PROBLEM,
            "is not configured",
        ),
        ({"whitelabel/domains": []}, "sender's domain", PROBLEM, "not authenticated"),
        (
            {"whitelabel/domains": [{"domain": "example.com", "valid": False, "dns": {}}]},
            "sender's domain",
            PROBLEM,
            "does not find the DNS records",
        ),
        (
            {"tracking_settings/google_analytics": {"enabled": True}},
            "tracking",
            WARNING,
            "Google Analytics",
        ),
        ({"tracking_settings/click": {"enabled": False}}, "tracking", OK, "differ"),
        ({"tracking_settings/open": {}}, "tracking", PROBLEM, "unexpected answer"),
        ({INBOUND: {"result": []}}, "inbound email", PROBLEM, "receives no email"),
        ({INBOUND: WRONG_HOST}, "inbound email", PROBLEM, "posted to another URL"),
    ],
)
def test_what_is_wrong_with_the_account_is_found(
    sandbox: RunningSandbox, account: dict[str, Any], subject: str, verdict: Verdict, words: str
) -> None:
    sandbox.account = account
    found = of(sandbox, inbound_host="in.example.com", inbound_url="https://us.example/key")
    assert found[subject].verdict is verdict
    assert words in found[subject].message
    assert bool(found[subject].remedy) or verdict is OK
    shown = json.dumps([str(one) for one in found.values()])
    assert "secret" not in shown
    assert "us.example/key" not in shown


def test_inbound_mail_that_is_posted_to_us_is_ok(sandbox: RunningSandbox) -> None:
    url = "https://news.example.com/webhooks/sendgrid/inbound/key"
    sandbox.account = {INBOUND: {"result": [{"hostname": "IN.example.com", "url": url}]}}
    found = of(sandbox, inbound_host="in.example.com", inbound_url=url)
    assert found["inbound email"].verdict is OK


def test_a_wrong_key_is_one_problem_and_the_rest_is_not_asked(sandbox: RunningSandbox) -> None:
    found = of(sandbox, key="SG.wrong")
    assert found.pop("API key").verdict is PROBLEM
    assert {one.verdict for one in found.values()} == {UNKNOWN}


def test_a_provider_that_does_not_answer_is_a_problem_and_no_traceback() -> None:
    def ask(*_: Any, **__: Any) -> Any:
        raise TryAgainError("no answer", place="scopes")

    first, *rest = of_account(Account(ask), ExpectedSetup(EVENTS, [], "example.com"))
    assert (first.subject, first.verdict) == ("API key", PROBLEM)
    assert {one.verdict for one in rest} == {UNKNOWN}


def dns(**changes: Any) -> Lookup:
    records = HEALTHY | changes.get("records", {})

    def lookup(name: str, kind: str) -> list[str]:
        return records.get((name, kind), [])

    return lookup


def silent(_name: str, _kind: str) -> list[str]:
    raise UnaskedError("no resolver")


def names(lookup: Lookup, domain: Domain | None = DOMAIN) -> dict[str, DoctorFinding]:
    found = dns_findings.of_domain(lookup, "example.com", domain, inbound_host="in.example.com")
    return {one.subject: one for one in found}


def test_a_healthy_domain_is_all_ok() -> None:
    assert {one.verdict for one in names(dns()).values()} == {OK}


@pytest.mark.parametrize(
    ("host", "kind", "values", "subject", "verdict"),
    [
        ("_dmarc.example.com", "TXT", [], "DMARC", PROBLEM),
        ("_dmarc.example.com", "TXT", ["v=DMARC1; p=none", "v=DMARC1; p=none"], "DMARC", PROBLEM),
        ("_dmarc.example.com", "TXT", ["v=DMARC1"], "DMARC", PROBLEM),
        ("_dmarc.example.com", "TXT", ["other", " V=DMARC1 ;P=None"], "DMARC", OK),
        ("s1._domainkey.example.com", "TXT", [], "DKIM", WARNING),
        ("s1._domainkey.example.com", "TXT", ["v=DKIM1; p="], "DKIM", WARNING),
        ("em1.example.com", "TXT", ["nothing"], "SPF", PROBLEM),
        ("in.example.com", "MX", ["mx.other.example"], "inbound MX", PROBLEM),
        ("in.example.com", "MX", [], "inbound MX", PROBLEM),
    ],
)
def test_what_dns_lacks_is_found(
    host: str, kind: str, values: list[str], subject: str, verdict: Verdict
) -> None:
    found = names(dns(records={(host, kind): values}))[subject]
    assert found.verdict is verdict
    assert found.remedy or verdict is OK


def test_a_subdomain_inherits_dmarc_with_its_own_policy() -> None:
    inherited = {("_dmarc.example.com", "TXT"): ["v=DMARC1; p=reject; sp=none"]}
    lookup = dns(records=inherited)
    first, *_ = dns_findings.of_domain(lookup, "news.example.com", DOMAIN)
    assert (first.verdict, first.message) == (OK, "none, from example.com")


def test_no_key_at_all_is_a_problem_where_sendgrid_named_the_records() -> None:
    gone = {(f"s{n}._domainkey.example.com", "TXT"): [] for n in (1, 2)}
    assert names(dns(records=gone))["DKIM"].verdict is PROBLEM
    assert names(dns(records=gone), None)["DKIM"].verdict is WARNING


def test_a_resolver_that_is_missing_is_not_a_problem_of_the_domain() -> None:
    found = [*names(silent).values(), dns_findings.of_base_url(silent, "https://news.de")]
    assert {one.verdict for one in found} == {UNKNOWN}
    assert all("the DNS lookup failed: no resolver" in one.message for one in found)


@pytest.mark.parametrize(
    ("url", "addresses", "verdict"),
    [
        ("https://news.de", ["93.184.215.14"], OK),
        ("https://news.de", ["10.0.0.1", "93.184.215.14"], OK),
        ("https://news.de", ["10.0.0.1"], PROBLEM),
        ("https://news.de", [], PROBLEM),
        ("http://news.de", ["93.184.215.14"], PROBLEM),
        ("https://localhost", ["127.0.0.1"], PROBLEM),
        ("https://news.example", ["93.184.215.14"], PROBLEM),
        ("https://newsroom", ["93.184.215.14"], PROBLEM),
        ("https://192.168.1.2:8443", [], PROBLEM),
        ("https://93.184.215.14", [], OK),
    ],
)
def test_where_readers_reach_us(url: str, addresses: list[str], verdict: Verdict) -> None:
    lookup = dns(records={("news.de", "A"): addresses})
    assert dns_findings.of_base_url(lookup, url).verdict is verdict


def test_the_journals_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b"
    assert host_findings.of_departure_log_folder(new).verdict is OK
    assert not (tmp_path / "a").exists()
    assert host_findings.of_departure_log_folder(tmp_path).verdict is OK
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").write_text("")
    assert host_findings.of_departure_log_folder(tmp_path / "file").verdict is PROBLEM
    assert host_findings.of_departure_log_folder(tmp_path / "file" / "below").verdict is PROBLEM
    assert host_findings.of_departure_log_folder(None).verdict is WARNING


def test_a_database_of_a_newer_release_is_a_problem(database: Engine) -> None:
    assert host_findings.of_database(database).verdict is OK
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    found = host_findings.of_database(database)
    assert (found.verdict, "9999" in found.message) == (PROBLEM, True)


def test_when_both_sides_were_last_compared(database: Engine) -> None:
    def finding(hours: float, **terms: Any) -> DoctorFinding:
        now = NOW + timedelta(hours=hours)
        return host_findings.of_reconciling(
            database, **{"every": timedelta(days=1), "now": now, **terms}
        )

    def add(**values: Any) -> None:
        with transaction(database) as session:
            session.add(Reconciliation(started_at=NOW, **values))

    assert (finding(0).verdict, finding(0).message) == (WARNING, "never yet")
    assert "switched off" in finding(0, every=timedelta()).message
    add(finished_at=NOW, report={"lists": {"bounces": {"new_here": 3}}})
    assert (finding(5).verdict, finding(5).message) == (
        OK,
        "5 hours ago; 3 suppressions were new here",
    )
    assert finding(73).verdict is WARNING
    add(error="SendGrid answered 401\nmore")
    assert finding(5).message == "the last run failed: SendGrid answered 401"


def test_an_empty_file_has_never_been_compared(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'new.db'}")
    found = host_findings.of_reconciling(engine, every=timedelta(days=1), now=NOW)
    engine.dispose()
    assert found.message == "never yet"


def test_the_whole_examination_against_sendgrid_itself_asks_dns(
    sandbox: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in production, but for who answers there."""
    monkeypatch.setattr("newsletter.container.Container.is_local", False)
    settings = load(
        {
            "NEWSLETTER_DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}",
            "NEWSLETTER_SENDING__DEPARTURE_LOG": str(tmp_path),
            "NEWSLETTER_SENDGRID__HOST": sandbox.url,
            "NEWSLETTER_SENDGRID__API_KEY": "SG.sandbox",
            "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": sandbox.public_key,
            "NEWSLETTER_SITE__BASE_URL": "https://news.example.com",
            "NEWSLETTER_SENDER__EMAIL": "news@example.com",
            "NEWSLETTER_SITE__POSTAL_ADDRESS": "Main Street 7, 10115 Berlin",
            "NEWSLETTER_LINKS__KEYS": "a key of thirty-two characters or more",
            "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": "another key of thirty-two characters",
        }
    )
    records = {("news.example.com", "A"): ["93.184.215.14"]}
    found = [*examine(settings, dns(records=records), lambda _url, _headers: "9.9.9.9")]
    assert {one.verdict for one in found} == {OK}, found
    assert {"site.base_url", "DMARC", "DKIM", "SPF"} <= {one.subject for one in found}
    assert [*tmp_path.iterdir()] == []


def test_how_old_the_latest_backup_is() -> None:
    def finding(hours: float | None, every: float = 24) -> DoctorFinding:
        latest = None if hours is None else NOW - timedelta(hours=hours)
        return host_findings.of_backups(latest, every=timedelta(hours=every), now=NOW)

    assert finding(None).verdict is WARNING
    assert (finding(30).verdict, finding(30).message) == (OK, "the latest is 30 hours old")
    assert finding(73).verdict is PROBLEM
    assert finding(None, every=0).verdict is OK
