"""Which messages a user gets by email: by role, or as chosen."""

import json
from functools import partial

import pytest
from sqlalchemy import Engine

from newsletter.accounts import audit, notifications, users
from newsletter.accounts.models import Role
from newsletter.accounts.operator_messages import MessageKind
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from tests.conftest import NOW
from tests.newsletter.cli.test_commands import Run, run
from tests.newsletter.web.conftest import Office, office, open_office

__all__ = ["office", "open_office", "run"]
PAGE = "/console/account/notifications"
PAUSED, FINISHED = MessageKind.SEND_PAUSED, MessageKind.SEND_FINISHED


def add(session: Session, role: Role) -> None:
    email = f"{role}@example.org"
    users.add(session, email, name="", role=role, max_owners=3, now=NOW, hashed="x")


def gets(database: Engine, role: Role) -> notifications.Notifications:
    with reading(database) as session:
        return notifications.of_user(users.by_email(session, f"{role}@example.org"))


@pytest.mark.both_databases
def test_the_role_decides_until_somebody_chooses(database: Engine) -> None:
    with transaction(database) as session:
        for role in Role:
            add(session, role)
    assert gets(database, Role.OWNER).kinds == gets(database, Role.APPROVER).kinds
    assert gets(database, Role.OWNER).kinds == set(MessageKind)
    assert gets(database, Role.EDITOR).kinds == gets(database, Role.VIEWER).kinds == set()
    with transaction(database) as session:
        user = users.by_email(session, "editor@example.org")
        notifications.choose(session, user, [PAUSED], digest=True)
    assert gets(database, Role.EDITOR) == notifications.Notifications(
        frozenset({PAUSED}), digest=True, of_role=False
    )
    with transaction(database) as session:
        user = users.by_email(session, "editor@example.org")
        notifications.choose(session, user, [], digest=False)
    # What the role has is no choice, and follows another role.
    assert gets(database, Role.EDITOR).of_role
    with transaction(database) as session:
        users.change_role(
            session, users.by_email(session, "editor@example.org").id, Role.APPROVER, max_owners=3
        )
    assert gets(database, Role.EDITOR).kinds == set(MessageKind)


def test_a_user_chooses_in_the_account_and_it_is_nobody_else_s_business(office: Office) -> None:
    browser = office.signed_in(Role.EDITOR)
    assert 'value="send_paused" checked' not in browser.get("/console/account").text
    answer = browser.client.post(
        PAGE,
        data={"csrf": browser.csrf, "kinds": ["send_paused", "send_finished"], "when": "daily"},
    )
    assert answer.headers["location"] == "/console/account?done=notifications"
    text = browser.get("/console/account").text
    assert 'value="send_paused" checked' in text
    assert 'value="daily" checked' in text
    assert gets(office.parts.database, Role.EDITOR).kinds == {PAUSED, FINISHED}
    assert browser.post(PAGE).status_code == 303
    assert gets(office.parts.database, Role.EDITOR).kinds == set()
    with reading(office.parts.database) as session:
        assert audit.entries(session, limit=5) == []


def test_an_unknown_kind_is_refused_and_changes_nothing(office: Office) -> None:
    browser = office.signed_in(Role.OWNER)
    answer = browser.post(PAGE, kinds="gossip", when="daily")
    assert answer.status_code == 400
    assert "There is no such kind of message" in answer.text
    assert not gets(office.parts.database, Role.OWNER).digest


def test_the_choice_of_another_user_is_in_the_audit_log(office: Office) -> None:
    browser = office.signed_in(Role.OWNER)
    other = office.user("viewer@example.org", Role.VIEWER)
    browser.post(f"/console/users/{other}/notifications", kinds="send_finished", when="at-once")
    assert gets(office.parts.database, Role.VIEWER).kinds == {FINISHED}
    with reading(office.parts.database) as session:
        (entry,) = audit.entries(session, limit=5)
    assert (entry.actor, entry.action, entry.subject) == (
        "owner@example.org",
        "notifications changed",
        "viewer@example.org",
    )
    assert entry.detail == {"messages": "send_finished", "when": "at once"}


@pytest.mark.slow
def test_the_command_chooses_and_shows(container: Container, run: Run, database_url: str) -> None:
    with transaction(container.database) as session:
        add(session, Role.OWNER)

    command = partial(run, "user", "notify", NEWSLETTER_DATABASE_URL=database_url)

    def notify(*words: str) -> dict[str, str]:
        done = command("owner@example.org", *words, "--json")
        assert done.returncode == 0, done.stderr
        return {one["kind"]: one["email"] for one in map(json.loads, done.stdout.splitlines())}

    assert set(notify().values()) == {"at once"}
    assert set(notify("--none").values()) == {"no"}
    chosen = notify("--only", "send_paused", "--daily")
    assert chosen.pop("send_paused") == "each morning"
    assert set(chosen.values()) == {"no"}
    assert set(notify("--all", "--at-once").values()) == {"at once"}
    assert gets(container.database, Role.OWNER).of_role
    wrong = command("owner@example.org", "--only", "gossip")
    assert wrong.returncode == 2
    assert "gossip: there is no such kind of message" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert command("owner@example.org", "--all", "--none").returncode == 2
