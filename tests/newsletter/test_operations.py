"""Each operation has one effect and one audit entry, from the command line and the console alike.

The table names every operation with its command and its form. Both run on a copy of the same
database, through the public command line and HTTP. The rows and the audit entries are equal but
for who did it. A command or a form that the table does not name fails the test.
"""

import getpass
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer.main
from fastapi.routing import APIRoute
from sqlalchemy import DateTime, select
from starlette.testclient import TestClient

from newsletter.accounts import sessions, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import AuditEntry, Role, SignInStage
from newsletter.cli.main import application
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, UTCDateTime, metadata, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.operations import settings as setting_operations
from newsletter.provider.gateway import Unknown
from newsletter.rendering.render import render
from newsletter.sandbox.server import SandboxConfig, start_sandbox
from newsletter.scheduling import schedules
from newsletter.scheduling.schedules import ScheduleOptions
from newsletter.sending.ab_testing import ABTest, Measure
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.ledger.forgotten_sends import ForgottenSendInfo
from newsletter.sending.models import DepartureLog
from newsletter.sending.operations import lifecycle
from newsletter.sending.planning.estimate import SendOptions
from newsletter.sending.states import LogState
from newsletter.settings.load import load
from newsletter.web.app import create_app
from newsletter.web.console import routes
from newsletter.web.console.base import session_cookie
from newsletter.webhooks import endpoints as webhooks
from subscribers.consent import suppression, topics
from subscribers.directory import edit
from subscribers.models import Subscriber, SuppressionReason
from subscribers.segments import store as segment_store
from tests.conftest import add_person
from tests.forking import command
from tests.newsletter.sending.conftest import FakeGateway, make_plan
from tests.newsletter.sending.delivery.test_dispatcher import dispatcher

TEXT = "---\nsubject: Hello\nslug: {slug}\nseries: {series}\n---\n\nGood day, {{{{ name }}}}.\n"
FUTURE = datetime(2099, 1, 1, 7, tzinfo=UTC)
SETUP = Actor(None, "setup")
OWNER = "owner@example.org"
CONSOLE = "/console"

Setup = Callable[[Container, Session], object]


def nothing(_parts: Container, _session: Session) -> None:
    """The world as it is."""


def create_send(
    parts: Container, session: Session, *, at: datetime = FUTURE, test: bool = False
) -> int:
    draft = store.draft_from("first", TEXT.format(slug="first", series="letter"))
    rendered = render(draft, parts.publication, templates=parts.settings.templates_directory)
    options = SendOptions(
        test=ABTest(0.5, Measure.OPERATOR, timedelta(hours=1)) if test else None,
        others=[(draft, rendered)] if test else [],
    )
    made = lifecycle.create(
        session,
        draft,
        rendered,
        ["all"],
        by=SETUP,
        approved_by=SETUP,
        at=at,
        now=min(at, datetime.now(UTC)),
        options=options,
    )
    return made.id


def paused_send(parts: Container, session: Session) -> None:
    lifecycle.pause(session, create_send(parts, session), by=SETUP, now=datetime.now(UTC))


def undecided_ab_test(parts: Container, session: Session) -> None:
    create_send(parts, session, at=datetime.now(UTC), test=True)
    session.commit()
    make_plan(parts.database, 1, now=datetime.now(UTC))


def missed_send(parts: Container, session: Session) -> None:
    create_send(parts, session, at=datetime.now(UTC))
    session.commit()
    make_plan(parts.database, 1, now=datetime.now(UTC))
    lifecycle.cancel(session, 1, by=SETUP, now=datetime.now(UTC))


def uncertain_batch(parts: Container, session: Session) -> None:
    create_send(parts, session, at=datetime.now(UTC))
    session.commit()
    make_plan(parts.database, 1, now=datetime.now(UTC))
    dispatcher(parts.database, FakeGateway(Unknown("lost"))).send_next()


def missing_log(_parts: Container, session: Session) -> None:
    session.add(
        DepartureLog(
            id="log-1",
            host="elsewhere",
            folder="/x",
            state=LogState.MISSING,
            read={},
            since=FUTURE,
            seen_at=FUTURE,
        )
    )


def forgotten(_parts: Container, session: Session) -> None:
    made = datetime(2026, 3, 1, tzinfo=UTC)
    known = forgotten_sends.get_or_create(
        session, 1, made, ForgottenSendInfo("first", ""), now=made
    )
    forgotten_sends.add_recipients(session, known, 1, [b"12345678"], answered=False)


def schedule(_parts: Container, session: Session) -> None:
    wanted = ScheduleOptions("weekly", "letter", "monday 07:00", "UTC", ["all"])
    schedules.create(session, wanted, by=SETUP, now=datetime.now(UTC))


def paused_schedule(parts: Container, session: Session) -> None:
    schedule(parts, session)
    schedules.pause(session, "weekly", by=SETUP, now=datetime.now(UTC))


def skipping_schedule(parts: Container, session: Session) -> None:
    schedule(parts, session)
    day = datetime(2099, 1, 5, tzinfo=UTC).date()
    schedules.skip(session, "weekly", [day], by=SETUP, now=datetime.now(UTC))


def suppressed(reason: SuppressionReason) -> Setup:
    def set_up(_parts: Container, session: Session) -> None:
        at = datetime(2026, 3, 1, tzinfo=UTC)
        suppression.add(session, [1], reason, at=at, evidence="said so")

    return set_up


def draft_issue(_parts: Container, session: Session) -> None:
    draft = parse_issue(TEXT.format(slug="new", series="other"), name="new.md")
    store.save(session, draft, by=SETUP, now=datetime.now(UTC))


def issue_in_review(parts: Container, session: Session) -> None:
    draft_issue(parts, session)
    approval.request(session, "new", by=SETUP, now=datetime.now(UTC), note="")


def second_issue(_parts: Container, session: Session) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    draft = parse_issue(TEXT.format(slug="second", series="letter"), name="second.md")
    store.save(session, draft, by=SETUP, now=now)
    approval.request(session, "second", by=SETUP, now=now, note="")
    approval.approve(session, "second", revision=1, by=SETUP, now=now, note="")


def renamed(parts: Container, session: Session) -> None:
    named = {"site.name": "Old paper"}
    setting_operations.change(session, parts, named, by=SETUP, now=datetime.now(UTC))


def second_user(_parts: Container, session: Session) -> None:
    now = datetime.now(UTC)
    users.add(
        session, "new@example.org", name="New", role=Role.EDITOR, max_owners=9, now=now, hashed="x"
    )


def endpoint(_parts: Container, session: Session) -> None:
    events = [WebhookEvent.SEND_FINISHED]
    webhooks.create(session, HOOK, events, by=SETUP, now=datetime.now(UTC), description="Chat")


def disabled_endpoint(parts: Container, session: Session) -> None:
    endpoint(parts, session)
    webhooks.disable(session, 1, by=SETUP, now=datetime.now(UTC))


def webhook_delivery(parts: Container, session: Session) -> None:
    endpoint(parts, session)
    webhooks.send_test(session, 1, by=SETUP, now=datetime.now(UTC))


def stamp_of_ann(parts: Container) -> str:
    with reading(parts.database) as session:
        return edit.stamp(edit.details_of(session, session.get_one(Subscriber, 1)))


@dataclass(frozen=True)
class Operation:
    """One operation, its command, and the form of the console that does the same."""

    command: str
    words: tuple[str, ...]
    path: str
    form: dict[str, Any]
    set_up: Setup = nothing
    #: Tables that differ for a reason: the command works on, or an invitation is emailed.
    differs: frozenset[str] = frozenset()


SENDS, PEOPLE, SCHEDULES = f"{CONSOLE}/sends", f"{CONSOLE}/subscribers", f"{CONSOLE}/schedules"
ISSUES, SEGMENTS, USERS = f"{CONSOLE}/issues", f"{CONSOLE}/segments", f"{CONSOLE}/users"
NEW_SEND = {
    "issue": "first",
    "segment": "all",
    "when": "at",
    "at": "2099-01-01T07:00",
    "revision": "1",
    "latest": "",
    "step": "send",
}
HOOKS, HOOK = f"{CONSOLE}/settings/webhooks", "https://hooks.example.com/chat"
SCHEDULE = {
    "name": "weekly",
    "series": "letter",
    "when": "monday 07:00",
    "zone": "UTC",
    "segments": "all",
}
#: What the provider is told: the command works on a retried send until it ends.
LEDGER = frozenset({"send", "batch", "delivery", "variant", "event", "status_count"})

OPERATIONS = (
    Operation(
        "send",
        ("first", "--segment", "all", "--at", "2099-01-01T07:00Z"),
        f"{SENDS}/new",
        NEW_SEND,
        # The command opens the departure log of this machine; the service did so when it started.
        differs=frozenset({"departure_log"}),
    ),
    Operation(
        "send",
        (
            *("first", "--segment", "all", "--except", "few", "--at", "2099-01-01T07:00Z"),
            *("--subject", "Good morning", "--variant", "second", "--sample", "50%"),
            *("--winner", "me", "--after", "2h", "--per-hour", "100", "--rate", "2.5"),
            *("--quiet", "22:00-07:00", "--window", "mon-fri 08:00-18:00", "--no-opens"),
        ),
        f"{SENDS}/new",
        NEW_SEND
        | {
            "excluded": "few",
            "subjects": "Good morning",
            "variant": "second",
            "variant_revisions": "1",
            "sample": "50%",
            "winner": "me",
            "after": "2h",
            "per_hour": "100",
            "rate": "2.5",
            "quiet": "22:00-07:00",
            "windows": "mon-fri 08:00-18:00",
            "opens": "no",
        },
        second_issue,
        differs=frozenset({"departure_log"}),
    ),
    Operation(
        "sends pause",
        ("1",),
        f"{SENDS}/{{send_id:int}}/pause",
        {},
        lambda parts, session: create_send(parts, session),
    ),
    Operation("sends resume", ("1",), f"{SENDS}/{{send_id:int}}/resume", {}, paused_send),
    Operation("sends cancel", ("1",), f"{SENDS}/{{send_id:int}}/cancel", {}, paused_send),
    Operation(
        "sends retry",
        ("1",),
        f"{SENDS}/{{send_id:int}}/retry",
        {},
        missed_send,
        # The command also sends, and its end publishes the issue and writes the departure log.
        differs=LEDGER | {"issue", "departure_log"},
    ),
    Operation(
        "sends pace",
        ("1", "--per-hour", "100", "--window", "mon-fri 08:00-18:00"),
        f"{SENDS}/{{send_id:int}}/pace",
        {"per_hour": "100", "windows": "mon-fri 08:00-18:00"},
        paused_send,
    ),
    Operation(
        "sends resolve",
        ("1", "--batch", "1", "--sent"),
        f"{SENDS}/{{send_id:int}}/resolve",
        {"batch": "1", "answer": "sent"},
        uncertain_batch,
    ),
    Operation(
        "sends winner",
        ("1", "B"),
        f"{SENDS}/{{send_id:int}}/winner",
        {"label": "B"},
        undecided_ab_test,
    ),
    Operation(
        "issue test",
        ("first", "--to", "me@example.org"),
        f"{ISSUES}/{{slug}}/preview",
        {"to": "me@example.org"},
    ),
    Operation(
        "departures set-aside",
        ("log-1", "--reason", "lost"),
        f"{SENDS}/departures",
        {"log": "log-1", "word": "aside", "reason": "lost"},
        missing_log,
    ),
    Operation(
        "departures recheck",
        ("log-1", "--reason", "back"),
        f"{SENDS}/departures",
        {"log": "log-1", "word": "compare", "reason": "back"},
        missing_log,
    ),
    Operation(
        "departures resolve",
        ("first", "--batch", "1", "--send", "1", "--sent"),
        f"{SENDS}/departures/resolve",
        {"issue": "first", "batch": "1", "send": "1", "answer": "sent"},
        forgotten,
    ),
    Operation(
        "schedule create",
        ("weekly", "--series", "letter", "--when", "monday 07:00", "--segment", "all"),
        SCHEDULES,
        SCHEDULE,
    ),
    Operation(
        "schedule change",
        ("weekly", "--when", "tuesday 07:00"),
        f"{SCHEDULES}/{{schedule_id:int}}",
        SCHEDULE | {"when": "tuesday 07:00"},
        schedule,
    ),
    Operation(
        "schedule pause", ("weekly",), f"{SCHEDULES}/{{schedule_id:int}}/pause", {}, schedule
    ),
    Operation(
        "schedule resume",
        ("weekly",),
        f"{SCHEDULES}/{{schedule_id:int}}/resume",
        {},
        paused_schedule,
    ),
    Operation(
        "schedule skip",
        ("weekly", "2099-01-05"),
        f"{SCHEDULES}/{{schedule_id:int}}/skip",
        {"day": "2099-01-05"},
        schedule,
    ),
    Operation(
        "schedule skip",
        ("weekly", "2099-01-05", "--undo"),
        f"{SCHEDULES}/{{schedule_id:int}}/skip",
        {"day": "2099-01-05", "undo": "yes"},
        skipping_schedule,
    ),
    Operation(
        "schedule delete", ("weekly",), f"{SCHEDULES}/{{schedule_id:int}}/delete", {}, schedule
    ),
    Operation(
        "segment create",
        ("pros", 'plan == "pro"'),
        SEGMENTS,
        {"name": "pros", "expression": 'plan == "pro"'},
    ),
    Operation(
        "segment change",
        ("few", "--name", "some"),
        f"{SEGMENTS}/{{segment_id:int}}",
        {"name": "some", "expression": 'plan == "pro"'},
    ),
    Operation("segment delete", ("few",), f"{SEGMENTS}/{{segment_id:int}}/delete", {}),
    Operation(
        "topic create",
        ("sport", "--name", "Sport"),
        f"{PEOPLE}/topics",
        {"slug": "sport", "name": "Sport"},
    ),
    Operation(
        "topic change",
        ("news", "--name", "Our news", "--place", "1", "--hide"),
        f"{PEOPLE}/topics/{{slug}}",
        {"name": "Our news", "place": "1", "hidden": "yes"},
    ),
    Operation("topic delete", ("news", "--yes"), f"{PEOPLE}/topics/{{slug}}/delete", {}),
    Operation(
        "subscribers add",
        ("cid@example.org", "--name", "Cid", "--wording", "At the fair"),
        f"{PEOPLE}/add",
        {"email": "cid@example.org", "name": "Cid", "wording": "At the fair"},
    ),
    Operation(
        "subscribers edit",
        ("ann@example.org", "--name", "Anna"),
        f"{PEOPLE}/{{person_id:int}}/edit",
        {"name": "Anna", "attributes": '{"plan": "pro"}', "seen": stamp_of_ann},
    ),
    Operation(
        "subscribers suppress",
        ("ann@example.org", "--reason", "asked by phone"),
        f"{PEOPLE}/{{person_id:int}}/suppress",
        {"why": "asked by phone"},
    ),
    Operation(
        "subscribers lift",
        ("ann@example.org",),
        f"{PEOPLE}/{{person_id:int}}/lift",
        {},
        suppressed(SuppressionReason.MANUAL),
    ),
    Operation(
        "suppressions lift",
        ("ann@example.org", "--reason", "works again"),
        f"{PEOPLE}/{{person_id:int}}/lift-bounce",
        {"reason": "works again"},
        suppressed(SuppressionReason.BOUNCED),
    ),
    Operation(
        "suppressions lift",
        ("--since", "2026-01-01T00:00Z", "--reason", "works again"),
        f"{PEOPLE}/bounces",
        {"since": "2026-01-01T00:00", "reason": "works again"},
        suppressed(SuppressionReason.BOUNCED),
    ),
    Operation("subscribers data", ("ann@example.org",), f"{PEOPLE}/{{person_id:int}}/data", {}),
    Operation(
        "subscribers erase",
        ("ann@example.org", "--yes"),
        f"{PEOPLE}/{{person_id:int}}/erase",
        {"email": "ann@example.org"},
    ),
    Operation(
        "issue save",
        ("new.md",),
        f"{ISSUES}/_edit",
        {"text": TEXT.format(slug="new", series="other")},
    ),
    Operation(
        "issue save",
        ("first.md", "--base", "1"),
        f"{ISSUES}/{{slug}}/edit",
        {"text": TEXT.format(slug="first", series="changed"), "base": "1"},
    ),
    Operation("issue review", ("new",), f"{ISSUES}/{{slug}}/review", {}, draft_issue),
    Operation(
        "issue approve",
        ("new", "--revision", "1"),
        f"{ISSUES}/{{slug}}/approve",
        {"revision": "1"},
        issue_in_review,
    ),
    Operation(
        "issue return",
        ("new", "--note", "shorter"),
        f"{ISSUES}/{{slug}}/return",
        {"note": "shorter"},
        issue_in_review,
    ),
    Operation("issue archive", ("first", "--on"), f"{ISSUES}/{{slug}}/archive", {"shown": "on"}),
    Operation(
        "user create",
        ("new@example.org", "--name", "New", "--role", "editor"),
        USERS,
        {"email": "new@example.org", "name": "New", "role": "editor"},
        differs=frozenset({"outbox_email"}),
    ),
    Operation(
        "user role",
        ("new@example.org", "approver"),
        f"{USERS}/{{user_id:int}}/role",
        {"role": "approver"},
        second_user,
    ),
    Operation(
        "user notify",
        ("new@example.org", "--only", "send_paused", "--only", "send_finished", "--daily"),
        f"{USERS}/{{user_id:int}}/notifications",
        {"kinds": ["send_finished", "send_paused"], "when": "daily"},
        second_user,
    ),
    Operation(
        "user end-sessions",
        ("new@example.org",),
        f"{USERS}/{{user_id:int}}/sessions/end",
        {},
        second_user,
    ),
    Operation(
        "user reset-factor",
        ("new@example.org",),
        f"{USERS}/{{user_id:int}}/factor/reset",
        {},
        second_user,
    ),
    Operation(
        "user remove", ("new@example.org",), f"{USERS}/{{user_id:int}}/remove", {}, second_user
    ),
    Operation(
        "webhooks create",
        (HOOK, "--event", "send.finished", "--event", "send.paused", "--description", "Chat"),
        HOOKS,
        {"url": HOOK, "events": ["send.paused", "send.finished"], "description": "Chat"},
    ),
    Operation(
        "webhooks change",
        ("1", "--event", "*", "--description", "Mail"),
        f"{HOOKS}/{{endpoint_id:int}}",
        {"url": HOOK, "events": [one.value for one in WebhookEvent], "description": "Mail"},
        endpoint,
    ),
    Operation("webhooks test", ("1",), f"{HOOKS}/{{endpoint_id:int}}/test", {}, endpoint),
    Operation("webhooks rotate", ("1",), f"{HOOKS}/{{endpoint_id:int}}/rotate", {}, endpoint),
    Operation("webhooks disable", ("1",), f"{HOOKS}/{{endpoint_id:int}}/disable", {}, endpoint),
    Operation(
        "webhooks enable",
        ("1",),
        f"{HOOKS}/{{endpoint_id:int}}/enable",
        {},
        disabled_endpoint,
    ),
    Operation(
        "webhooks resend",
        ("1",),
        f"{HOOKS}/{{endpoint_id:int}}/deliveries/{{delivery_id:int}}/resend",
        {},
        webhook_delivery,
    ),
    Operation(
        "webhooks delete", ("1",), f"{HOOKS}/{{endpoint_id:int}}/delete", {}, webhook_delivery
    ),
    Operation(
        "settings set", ("site.name", "Paper"), f"{CONSOLE}/settings", {"site_name": "Paper"}
    ),
    Operation(
        "settings set",
        ("tracking.opens", "off"),
        f"{CONSOLE}/settings",
        {"tracking_opens": "off", "site_name": "Old paper", "version": "1"},
        renamed,
    ),
    Operation(
        "settings unset",
        ("site.name",),
        f"{CONSOLE}/settings/unset",
        {"key": "site.name", "version": "1"},
        renamed,
    ),
)

#: Commands that only read, run a process, or look after the machine.
READS = {
    "init", "render", "check", "doctor", "serve", "worker", "sandbox", "demo",
    "issue import", "issue list", "issue show", "issue history", "sends show", "sends test",
    "departures compare", "schedule list", "schedule show", "schedule next", "stats show",
    "stats recipients", "stats verify", "subscribers export", "segment count", "segment list",
    "segment show", "topic list", "user list", "user log", "backup", "restore", "db upgrade",
    "db copy", "alerts backtest", "webhooks list", "webhooks deliveries",
}  # fmt: skip
#: Operations of the command line alone, and why.
COMMANDS_ALONE = {
    "sends continue": "works on a send in this process; the service does so by itself",
    "subscribers import": "reads a file of this machine; the console takes an upload",
    "user password": "for somebody whom no email reaches; the console emails a link",
    "segment index": "changes the schema of the database",
    "db prune": "the service does it each hour",
    "reconcile": "the service does it by itself",
}
#: Forms of the console alone, and why: what is somebody's own, and what changes nothing.
FORMS_ALONE = {
    f"{PEOPLE}/import": "takes an upload",
    f"{PEOPLE}/import/{{job_id:int}}/start": "imports an upload",
    f"{PEOPLE}/import/{{job_id:int}}/read-again": "reads an upload",
    f"{PEOPLE}/import/{{job_id:int}}/stop": "stops an upload",
    f"{USERS}/{{user_id:int}}/invite": "emails an invitation; the command prints a password",
    f"{ISSUES}/_new": "fills the editor",
    f"{ISSUES}/_check": "changes nothing",
    f"{ISSUES}/_mail": "changes nothing",
    f"{ISSUES}/{{slug}}/ask": "changes nothing",
    f"{SCHEDULES}/preview": "changes nothing",
    f"{SEGMENTS}/try": "changes nothing",
    "/console/deliverability/circuit-breaker": "changes nothing",
    "/console/messages/read": "marks the messages as read by whoever posts it",
}
OWN_ACCOUNT = (
    "/console/sign-",
    "/console/account/",
    "/console/forgot",
    "/console/password/",
    "/console/setup/",
)


def commands() -> set[str]:
    """Every command of the command line."""

    def walk(one: Any, path: tuple[str, ...]) -> set[str]:
        children = getattr(one, "commands", None)
        if not children:
            return {" ".join(path)}
        return set().union(*(walk(child, (*path, name)) for name, child in children.items()))

    return walk(typer.main.get_command(application()), ())


def forms() -> set[str]:
    """The path of every form of the console that an operator posts, but of their own account."""
    paths = {
        route.path
        for module in routes._PAGES
        for route in module.router.routes
        if isinstance(route, APIRoute) and "POST" in route.methods
    }
    return {path for path in paths if not path.startswith(OWN_ACCOUNT)}


def test_every_operation_is_in_the_table() -> None:
    assert commands() == {one.command for one in OPERATIONS} | READS | set(COMMANDS_ALONE)
    assert forms() == {one.path for one in OPERATIONS} | set(FORMS_ALONE)


@dataclass
class Side:
    """A copy of the database, and who does something there."""

    parts: Container
    environment: dict[str, str]
    folder: Path

    def entries(self) -> list[tuple[str, str, dict[str, Any], str]]:
        """(action, subject, detail, actor) of what was done since the setup."""
        entry = table_of(AuditEntry)
        with reading(self.parts.database) as session:
            rows = session.execute(
                select(entry).where(entry.c.actor != SETUP.name).order_by(entry.c.id)
            ).all()
        return [(row.action, row.subject, _timeless(row.detail), row.actor) for row in rows]

    def rows(self, without: frozenset[str]) -> dict[str, list[Any]]:
        """All rows of the domain, without times and without who did it."""
        found = {}
        with reading(self.parts.database) as session:
            for table in metadata.sorted_tables:
                if table.name in _NOT_COMPARED | without:
                    continue
                columns = [
                    column
                    for column in table.columns
                    if not isinstance(column.type, DateTime | UTCDateTime)
                    and not {column.name, str(column)} & _SECRET
                ]
                rows = session.execute(select(*columns).order_by(*table.primary_key)).all()
                found[table.name] = [[_timeless(value) for value in row] for row in rows]
        return found


#: Who was there, how often, and which process: no part of an operation's effect.
_NOT_COMPARED = frozenset(
    {"audit_entry", "console_session", "rate_limit", "worker", "status_count", "identity"}
)
#: Random, of this process, or the number of who did it: the command line has no user.
_SECRET = {
    *("password", "stamp", "chain", "worker", "html", "text"),
    *("made_by", "actor_id", "author_id", "user_id"),
    *("secret", "old_secret", "webhook_delivery.message_id"),
}
_ACTORS = re.compile(rf"{re.escape(OWNER)}|command line \([^)]*\)|command line")
_TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.]*(Z|[+-]\d\d:\d\d)?")


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    if isinstance(value, str):
        return _TIMES.sub("TIME", _ACTORS.sub("ACTOR", value))
    return value


@pytest.fixture
def sides(tmp_path: Path, _templates: dict[str, str]) -> Any:  # (a fixture of functions)
    """Makes two copies of a database that a setup has filled."""
    opened = []

    def side(folder: Path, host: str) -> Side:
        folder.mkdir(exist_ok=True)
        environment = {
            "PATH": "/usr/bin:/bin",
            "NEWSLETTER_DATABASE_URL": f"sqlite:///{folder}/newsletter.db",
            "NEWSLETTER_LINKS__KEYS": "a test's link key of 32 characters and more",
            "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS,
            "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
            "NEWSLETTER_SENDGRID__HOST": host,
            "NEWSLETTER_SENDING__DEPARTURE_LOG": str(folder / "departures"),
            "NEWSLETTER_IMPORTS__FOLDER": str(folder / "imports"),
            "NEWSLETTER_CONSOLE__HASH_MEMORY": "8",
            "NEWSLETTER_CONSOLE__HASH_ROUNDS": "1",
            "NEWSLETTER_CONSOLE__REQUIRE_SECOND_FACTOR": "false",
            "NEWSLETTER_REVIEW__SECOND_PERSON": "false",
        }
        parts = Container(load(environment))
        opened.append(parts)
        for slug, series in (("new", "other"), ("first", "changed")):
            (folder / f"{slug}.md").write_text(TEXT.format(slug=slug, series=series))
        return Side(parts, environment, folder)

    def make(set_up: Setup, host: str) -> tuple[Side, Side]:
        world = tmp_path / "world"
        world.mkdir()
        shutil.copy(_templates["sqlite"], world / "newsletter.db")
        parts = side(world, host).parts
        _ = parts.links, parts.address_key
        with transaction(parts.database) as session:
            _people(session)
        # Not transaction(): it keeps the turn to write, which some set-ups need for themselves.
        with Session(parts.database) as session:
            set_up(parts, session)
            session.commit()
        parts.database.dispose()
        copies = []
        for name in ("command-line", "console"):
            (tmp_path / name).mkdir()
            shutil.copy(world / "newsletter.db", tmp_path / name / "newsletter.db")
            copies.append(side(tmp_path / name, host))
        return copies[0], copies[1]

    yield make
    for parts in opened:
        parts.database.dispose()


ADDRESS = "a test's address key of 32 characters and more"


def _people(session: Session) -> None:
    """Two subscribers, two segments, a topic, an approved issue, and the owner."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    add_person(session, "ann@example.org", name="Ann", attributes={"plan": "pro"})
    add_person(session, "ben@example.org", name="Ben")
    topics.save(session, "news", name="News")
    segment_store.save(session, "few", 'plan == "pro"', now=now)
    segment_store.save(session, "all", "", now=now)
    users.add(session, OWNER, name="Olga", role=Role.OWNER, max_owners=9, now=now, hashed="x")
    draft = parse_issue(TEXT.format(slug="first", series="letter"), name="first.md")
    store.save(session, draft, by=SETUP, now=now)
    approval.request(session, "first", by=SETUP, now=now, note="")
    approval.approve(session, "first", revision=1, by=SETUP, now=now, note="")


def post(side: Side, operation: Operation) -> None:
    """Post the form as the owner."""
    with TestClient(create_app(side.parts, background=False), follow_redirects=False) as client:
        with transaction(side.parts.database) as session:
            token = sessions.begin(
                session,
                users.by_email(session, OWNER).id,
                SignInStage.FULL,
                lasts=timedelta(hours=1),
                now=datetime.now(UTC),
                ip="192.0.2.9",
                browser="Test",
            )
        client.cookies.set("console", token, domain="testserver.local", path="/")
        form = {
            name: value(side.parts) if callable(value) else value
            for name, value in operation.form.items()
        }
        answer = client.post(
            path_of(operation),
            data={"csrf": session_cookie.form_token(side.parts.form_keys, token), **form},
            headers={"accept": "text/html"},
        )
    problem = re.search(r'role="alert".*?</', answer.text, re.DOTALL)
    assert answer.status_code in {200, 303}, problem[0] if problem else answer.text


def path_of(operation: Operation) -> str:
    """The form's path about the first send, segment or subscriber, and the second user."""
    path = operation.path.replace("{user_id:int}", "2")
    slug = operation.words[0].removesuffix(".md")
    return re.sub(r"\{\w+:int\}", "1", path).replace("{slug}", slug)


@pytest.mark.parametrize(
    "operation", OPERATIONS, ids=lambda one: " ".join((one.command, *one.words[1:]))[:40]
)
def test_an_operation_has_one_effect_and_one_entry_on_both_sides(
    sides: Any, operation: Operation
) -> None:
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as sandbox:
        line, console = sides(operation.set_up, sandbox.url)
        words = [*operation.command.split(), *operation.words]
        done = command(words, environment=line.environment, folder=line.folder)
        assert done.returncode == 0, done.stderr
        post(console, operation)
    assert line.rows(operation.differs) == console.rows(operation.differs)
    by_line, by_console = line.entries(), console.entries()
    assert {actor for *_, actor in by_line} == {f"command line ({getpass.getuser()})"}
    assert {actor for *_, actor in by_console} == {OWNER}
    if operation.command == "user create":
        assert [entry[0] for entry in by_line] == ["user created"]
        assert [entry[0] for entry in by_console] == ["user invited"]
    else:
        assert [entry[:2] for entry in by_line] == [entry[:2] for entry in by_console]
