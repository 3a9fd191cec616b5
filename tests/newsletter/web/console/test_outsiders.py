"""What strangers and stolen sessions cannot do to the console: fill it, stop it, take it over."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pyotp
import pytest
import time_machine
from sqlalchemy import func, select

from newsletter.accounts import audit, passwords, two_factor
from newsletter.accounts.models import AuditEntry, Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import AccountError, BusyError
from newsletter.links import Purpose
from newsletter.scheduling import schedules
from newsletter.scheduling.schedules import ScheduleOptions
from newsletter.sending.models import OutboxEmail
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.web.conftest import PASSWORD, Browser, Office

_entry, _notice = table_of(AuditEntry), table_of(OutboxEmail)


def entries(office: Office) -> int:
    with reading(office.parts.database) as session:
        return session.scalar(select(func.count()).select_from(_entry)) or 0


def mailed(office: Office) -> list[tuple[str, str]]:
    with reading(office.parts.database) as session:
        rows = session.execute(select(_notice.c.email, _notice.c.text).order_by(_notice.c.id))
        return [(row.email, row.text) for row in rows]


# The log, whose entries nobody can delete


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_strangers_cannot_fill_the_log(open_office: Callable[..., Office], known: bool) -> None:
    office = open_office(
        require_second_factor="false", per_network="10000", per_account="10000", hash_rounds="1"
    )
    office.user("alice@example.org", Role.OWNER)
    email = "alice@example.org" if known else "{}@example.org"
    for n in range(100):
        browser = office.browser(f"198.51.100.{n}")
        browser.get("/console/forgot")
        assert browser.post("/console/forgot", email=email.format(n)).status_code == 200
        browser.sign_in(email.format(n), "wrong password of somebody")
    assert entries(office) <= 2 * 10 + 1
    with reading(office.parts.database) as session:
        said = [row.action for row in audit.entries(session)]
    assert said.count("more tries than are logged") == 1
    # An hour later there is room again, and who is signed in never lacks it.
    before = entries(office)
    with time_machine.travel(datetime.now(UTC).timestamp() + 2 * 3600):
        office.browser().sign_in("alice@example.org", PASSWORD)
        browser = office.browser()
        browser.get("/console/forgot")
        browser.post("/console/forgot", email=email.format(1))
    assert entries(office) == before + 2


@pytest.mark.slow
def test_all_strangers_together_write_so_many_entries_an_hour(office: Office) -> None:
    for n in range(100):
        office.user(f"p{n}@example.org")
        browser = office.browser(f"198.51.100.{n}")
        browser.get("/console/forgot")
        browser.post("/console/forgot", email=f"p{n}@example.org")
    assert entries(office) == 60 + 1
    with reading(office.parts.database) as session:
        assert audit.first_broken(session) is None


# Passwords are expensive to look at


@pytest.mark.slow
def test_who_comes_in_a_crowd_is_sent_away_at_once_and_leaving_is_not_behind_them(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    hasher = office.parts.passwords._hasher
    real = type(hasher).verify

    def slow(*given: object) -> bool:
        released.wait(60)
        return bool(real(hasher, *given[-2:]))

    monkeypatch.setattr(type(hasher), "verify", slow)
    office.user("alice@example.org")
    with transaction(office.parts.database) as session:
        person = add_person(session, "ada@example.org")
    browsers = [office.browser(f"198.51.100.{n}") for n in range(50)]
    for browser in browsers:
        browser.get("/console/sign-in")
    statuses: list[int] = []

    def come(browser: Browser) -> None:
        statuses.append(browser.sign_in("alice@example.org").status_code)

    crowd = [threading.Thread(target=come, args=(browser,)) for browser in browsers]
    for one in crowd:
        one.start()
    # All but those who are looked at or wait have their answer, while no password is done.
    while len(statuses) < 44:
        time.sleep(0.01)
        assert any(one.is_alive() for one in crowd)
    assert set(statuses) == {503}
    token = office.parts.links.token(Purpose.RECIPIENT, 1, person)
    assert office.browser().client.post(f"/unsubscribe/{token}").status_code == 200
    assert not released.is_set()
    released.set()
    for one in crowd:
        one.join(60)
    assert statuses.count(503) == 44
    assert statuses.count(303) == 6


def test_too_many_passwords_at_once_are_refused_with_a_time_to_come_back(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.user("alice@example.org")
    monkeypatch.setattr(passwords, "_ADMITTED", threading.BoundedSemaphore(1))
    passwords._ADMITTED.acquire()
    browser = office.browser()
    answer = browser.sign_in("alice@example.org")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Try again" in answer.text
    with pytest.raises(BusyError):
        office.parts.passwords.hashed("x")
    passwords._ADMITTED.release()
    assert browser.sign_in("alice@example.org").status_code == 303


@pytest.mark.parametrize(
    "password",
    """password1234 Password2026! letmeinletmein qwertyuiop12 iloveyou12345 p@ssw0rdp@ssw0rd
    newsletter2026 1q2w3e4r5t6y adaadaadaada1 abcdabcdabcd9 trustno1trustno1""".split(),
)
def test_what_guessers_try_first_is_no_password(password: str) -> None:
    with pytest.raises(AccountError, match="easy to guess"):
        passwords.check(password, email="ada@example.org")


def test_generated_passwords_and_unrelated_words_are_passwords() -> None:
    for password in (
        PASSWORD,
        passwords.generated(),
        "mehrere Wörter ohne Bezug 7",
        "x7#kQ9!vLm2$",
    ):
        passwords.check(password, email="ada@example.org")


# A second factor whose tries somebody uses up


def test_a_recovery_code_works_while_codes_of_the_app_are_used_up(office: Office) -> None:
    user = office.user("alice@example.org")
    with transaction(office.parts.database) as session:
        secret = two_factor.begin(session, user)
        codes = two_factor.prove(session, user, pyotp.TOTP(secret).now(), now=datetime.now(UTC))
    assert codes
    thief = office.browser("198.51.100.1")
    thief.sign_in("alice@example.org")
    while thief.post("/console/sign-in/code", code="000000").status_code == 400:
        pass
    alice = office.browser("203.0.113.1")
    alice.sign_in("alice@example.org")
    assert alice.post("/console/sign-in/code", code="123456").status_code == 429
    for wrong in ("aaaa-bbbb-cccc-dddd", "", "x" * 16):
        answer = alice.post("/console/sign-in/code", code=wrong)
        assert answer.status_code in {400, 429}
    assert alice.post("/console/sign-in/code", code=codes[0].upper()).status_code == 303
    # Guessing at them has its own end.
    thief.sign_in("alice@example.org")
    tries = [
        thief.post("/console/sign-in/code", code=f"aaaa-bbbb-cccc-{n:04}").status_code
        for n in range(12)
    ]
    assert tries[-1] == 429


# Owners


OF_OWNERS: dict[str, tuple[str, dict[str, str]]] = {
    "made": ("/console/users/{editor}/role", {"role": "owner"}),
    "unmade": ("/console/users/{other}/role", {"role": "viewer"}),
    "robbed of the app": ("/console/users/{other}/factor/reset", {}),
    "removed": ("/console/users/{other}/remove", {}),
    "invited": ("/console/users", {"email": "new@example.org", "role": "owner"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", OF_OWNERS)
def test_an_owner_is_changed_only_with_the_password_and_the_others_are_told(
    office: Office, what: str
) -> None:
    numbers = {
        "other": str(office.user("other@example.org", Role.OWNER)),
        "editor": str(office.user("editor@example.org", Role.EDITOR)),
    }
    office.user("third@example.org", Role.OWNER)
    with transaction(office.parts.database) as session:
        secret = two_factor.begin(session, int(numbers["other"]))
        two_factor.prove(
            session, int(numbers["other"]), pyotp.TOTP(secret).now(), now=datetime.now(UTC)
        )
    browser = office.signed_in(Role.OWNER, "me@example.org")
    path, form = OF_OWNERS[what]
    path = path.format(**numbers)
    for current in ({}, {"current": ""}, {"current": "wrong"}):
        answer = browser.post(path, **form, **current)
        assert answer.status_code == 400
        assert "current password" in answer.text
    assert mailed(office) == []
    # The limit is 9 in the fixture's own users, and 3 for all that pages do.
    answer = browser.post(path, **form, current=PASSWORD)
    if what in {"made", "invited"}:
        assert answer.status_code == 400
        browser.post(f"/console/users/{numbers['other']}/role", role="viewer", current=PASSWORD)
        answer = browser.post(path, **form, current=PASSWORD)
    assert answer.status_code == 303, answer.text
    told = [email for email, text in mailed(office) if "check the users and the audit log" in text]
    assert "third@example.org" in told
    assert "me@example.org" not in told


def test_what_concerns_no_owner_is_not_asked_twice(office: Office) -> None:
    editor = office.user("editor@example.org", Role.EDITOR)
    browser = office.signed_in(Role.OWNER)
    for path, form in (
        (f"/console/users/{editor}/role", {"role": "approver"}),
        (f"/console/users/{editor}/factor/reset", {}),
        (f"/console/users/{editor}/remove", {}),
        ("/console/users", {"email": "new@example.org", "role": "approver"}),
    ):
        assert browser.post(path, **form).status_code == 303, path
    assert not [text for _, text in mailed(office) if "owners of the console" in text]


# The right to send


@pytest.mark.slow
def test_an_editor_changes_no_rule_by_which_a_schedule_sends(office: Office) -> None:
    with transaction(office.parts.database) as session:
        segment_store.save(session, "few", 'name == "Ada"', now=NOW)
        segment_store.save(session, "free", 'name == "Ada"', now=NOW)
        wanted = ScheduleOptions(
            name="daily",
            series="daily",
            rule="daily 07:00",
            zone="UTC",
            segments=["few"],
            excluded=[],
            own_clock=False,
            skips=[],
        )
        schedules.create(session, wanted, by=audit.Actor(None, "x"), now=datetime.now(UTC))
        numbers = {name: segment_store.find(session, name).id for name in ("few", "free")}
    editor, approver = office.signed_in(Role.EDITOR), office.signed_in(Role.APPROVER)
    everybody = {"name": "few", "expression": ""}
    answer = editor.post(f"/console/segments/{numbers['few']}", **everybody)
    assert answer.status_code == 400
    assert "Ask an approver to change it" in answer.text
    free = editor.post(f"/console/segments/{numbers['free']}", name="free", expression="")
    assert free.status_code == 303
    assert approver.post(f"/console/segments/{numbers['few']}", **everybody).status_code == 303
