"""Getting into the console, and all the ways in which nobody else does."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
import time_machine
from argon2 import PasswordHasher
from sqlalchemy import select

from newsletter.accounts import audit, two_factor, users
from newsletter.accounts.models import AuditEntry, Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.sending.models import OutboxEmail
from newsletter.web.console.base import session_cookie
from tests.newsletter.web.conftest import PASSWORD, Browser, Office

MORNING = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)


def log(office: Office) -> list[str]:
    entry = table_of(AuditEntry)
    with reading(office.parts.database) as session:
        assert audit.first_broken(session) is None
        return list(session.scalars(select(entry.c.action).order_by(entry.c.id)))


def link_in_mail(office: Office, email: str) -> str:
    notice = table_of(OutboxEmail)
    with reading(office.parts.database) as session:
        newest = select(notice).where(notice.c.email == email).order_by(notice.c.id.desc())
        row = session.execute(newest.limit(1)).one()
    found = re.search(r"/console/password/[\w-]+", row.text)
    assert found
    return found[0]


def mails(office: Office) -> int:
    with reading(office.parts.database) as session:
        return len(session.scalars(select(table_of(OutboxEmail).c.id)).all())


def with_app(office: Office, email: str, *, role: Role = Role.VIEWER) -> tuple[str, list[str]]:
    """A user whose app is in force; returns its secret and the recovery codes."""
    user_id = office.user(email, role)
    before = datetime.now(UTC) - timedelta(minutes=5)
    with transaction(office.parts.database) as session:
        secret = two_factor.begin(session, user_id)
        codes = two_factor.prove(session, user_id, pyotp.TOTP(secret).at(before), now=before)
    assert codes
    return secret, list(codes)


def half_signed_in(office: Office, email: str) -> Browser:
    browser = office.browser()
    answer = browser.sign_in(email)
    assert answer.headers["location"].startswith("/console/sign-in/code")
    return browser


def test_a_password_leads_in_with_a_token_that_nobody_knew_before(office: Office) -> None:
    office.user("alice@example.org")
    browser = office.browser()
    browser.get("/console/sign-in")
    before = browser.token
    answer = browser.sign_in("Alice@Example.org")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    assert len(browser.token) == 43
    assert browser.token != before
    assert browser.get("/console/").status_code == 200
    # A token that somebody planted in the browser stays worth nothing.
    planted = office.browser()
    planted.token = before
    assert planted.get("/console/").status_code == 303
    assert log(office) == ["signed in"]


def test_signing_in_again_ends_the_session_before(office: Office) -> None:
    office.user("alice@example.org")
    browser = office.browser()
    browser.sign_in("alice@example.org")
    first = browser.token
    browser.sign_in("alice@example.org")
    stolen = office.browser()
    stolen.token = first
    assert stolen.get("/console/").status_code == 303


@pytest.mark.slow
def test_the_cookie_is_for_this_host_and_no_script(
    open_office: Callable[..., Office], environment: dict[str, str]
) -> None:
    plain = open_office().browser().get("/console/sign-in").headers["set-cookie"]
    assert plain.startswith("console=")
    assert "HttpOnly; Path=/; SameSite=lax" in plain
    assert "Secure" not in plain
    environment["NEWSLETTER_SITE__BASE_URL"] = "https://news.example.com"
    secure = open_office().browser().get("/console/sign-in").headers["set-cookie"]
    assert secure.startswith("__Host-console=")
    assert "HttpOnly; Path=/; SameSite=lax; Secure" in secure
    assert "Domain" not in secure


_OURS = '<script src="/static/console.js" defer>'


def test_pages_run_no_foreign_script_and_are_kept_nowhere(office: Office) -> None:
    for answer in (
        office.browser().get("/console/sign-in"),
        office.signed_in(Role.OWNER).get("/console/users"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "DENY"
        assert set(re.findall(r"<script[^>]*>", answer.text)) <= {_OURS}
        assert " style=" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver.evil.example"},
        {"origin": "https://testserver"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_post_from_another_site_is_refused(office: Office, headers: dict[str, str]) -> None:
    owner = office.signed_in(Role.OWNER)
    answer = owner.post("/console/account/name", headers=headers, name="Mallory")
    assert answer.status_code == 403
    assert "from another site" in answer.text
    assert "Mallory" not in owner.get("/console/account").text


def test_a_post_needs_the_token_of_this_browser(office: Office) -> None:
    owner, other = office.signed_in(Role.OWNER), office.signed_in(Role.OWNER)
    for wrong in ("", "x" * 64, other.csrf, owner.csrf[:-1], "ü", owner.csrf + "\0"):
        assert owner.post("/console/account/name", csrf=wrong, name="M").status_code == 403
    ours = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
    assert owner.post("/console/account/name", headers=ours, name="M").status_code == 303
    # htmx sends it in a header.
    by_header = owner.client.post(
        "/console/account/name", data={"name": "H"}, headers={"x-csrf-token": owner.csrf}
    )
    assert by_header.status_code == 303


def test_signing_in_needs_the_forms_token_too(office: Office) -> None:
    office.user("alice@example.org")
    answer = office.browser().client.post(
        "/console/sign-in", data={"email": "alice@example.org", "password": PASSWORD}
    )
    assert answer.status_code == 403
    assert "console" not in answer.cookies


def test_nobody_learns_whether_there_is_an_account(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.user("alice@example.org")
    with transaction(office.parts.database) as session:
        invited = {"name": "", "role": Role.VIEWER, "max_owners": 3, "now": MORNING}
        users.add(session, "new@example.org", **invited)
    worked: list[str] = []
    verify = PasswordHasher.verify

    def counted(hasher: PasswordHasher, hashed: str, password: str) -> bool:
        worked.append(hashed.rpartition("$")[0].rpartition("$")[0])
        return verify(hasher, hashed, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    pages = []
    for email in ("alice@example.org", "nobody@example.org", "new@example.org", "no address"):
        answer = office.browser().sign_in(email, "wrong password")
        assert answer.status_code == 400
        pages.append(re.sub(r'value="[^"]*"', "", answer.text))
    assert len(set(pages)) == 1
    # The same work for each, with the same parameters.
    assert worked == ["$argon2id$v=19$m=8,t=1,p=1"] * 4
    assert log(office) == ["password refused"] * 4


def test_an_empty_password_opens_no_invited_account(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    owner.post("/console/users", email="new@example.org", role="editor")
    for password in ("", " ", "x" * 100_000):
        answer = office.browser().sign_in("new@example.org", password)
        assert answer.status_code == (413 if len(password) > 50_000 else 400)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/console/../../evil",
        "/consolex",
        "javascript:alert(1)",
        "/console/\r\nSet-Cookie: a=b",
        "/console/%0d%0aSet-Cookie:a=b",
        "/console/\u2028",
        "",
        "/unsubscribe/x",
        "/console/" + "a" * 600,
    ],
)
def test_signing_in_leads_to_the_console_only(office: Office, target: str) -> None:
    office.user("alice@example.org")
    browser = office.browser()
    page = browser.get("/console/sign-in", params={"next": target})
    answer = browser.sign_in("alice@example.org", next=target)
    assert answer.status_code == 303
    where = answer.headers["location"]
    assert where.startswith("/console/")
    assert "\n" not in where
    assert len(answer.headers.get_list("set-cookie")) == 1
    assert "evil.example" not in page.text


def test_after_signing_in_one_gets_where_one_wanted(office: Office) -> None:
    office.user("boss@example.org", Role.OWNER)
    browser = office.browser()
    lead = browser.get("/console/log?before=7").headers["location"]
    assert lead == "/console/sign-in?next=%2Fconsole%2Flog%3Fbefore%3D7"
    following = re.search(r'name="next" value="([^"]*)"', browser.get(lead).text)
    assert following
    answer = browser.sign_in("boss@example.org", next=following[1])
    assert answer.headers["location"] == "/console/log?before=7"


def test_one_network_is_stopped_and_others_are_not(office: Office) -> None:
    office.user("alice@example.org")
    with time_machine.travel(MORNING, tick=False) as clock:
        attacker = office.browser("203.0.113.5")
        for _ in range(10):
            assert attacker.sign_in("alice@example.org", "wrong").status_code == 400
        stopped = attacker.sign_in("alice@example.org", PASSWORD)
        assert stopped.status_code == 429
        assert stopped.headers["retry-after"] == "900"
        # Alice, elsewhere, notices nothing.
        assert office.browser("192.0.2.1").sign_in("alice@example.org").status_code == 303
        clock.shift(timedelta(minutes=20))
        assert attacker.sign_in("alice@example.org", PASSWORD).status_code == 303


def test_one_network_tries_no_list_of_accounts(office: Office) -> None:
    with time_machine.travel(MORNING, tick=False):
        attacker = office.browser("2001:db8::1")
        for number in range(50):
            assert attacker.sign_in(f"user{number}@example.org", "x").status_code == 400
        # Its neighbour in the same /64 is the same network.
        neighbour = office.browser("2001:db8::2")
        assert neighbour.sign_in("user99@example.org", "x").status_code == 429


def test_many_networks_together_are_stopped_at_one_account(
    open_office: Callable[..., Office],
) -> None:
    office = open_office(require_second_factor="false", per_account="2")
    office.user("alice@example.org")
    with time_machine.travel(MORNING, tick=False):
        answers = [
            office.browser(f"203.0.113.{number}").sign_in("alice@example.org", "x").status_code
            for number in range(21)
        ]
    assert answers == [400] * 20 + [429]


def test_sessions_end_by_idleness_and_by_age(office: Office) -> None:
    with time_machine.travel(MORNING, tick=False) as clock:
        browser = office.signed_in(Role.VIEWER)
        for _ in range(7):
            clock.shift(timedelta(minutes=100))
            assert browser.get("/console/").status_code == 200
        clock.shift(timedelta(minutes=21))
        # Twelve hours after signing in, however busy.
        assert browser.get("/console/").status_code == 303
        idle = office.signed_in(Role.VIEWER)
        clock.shift(timedelta(minutes=121))
        assert idle.get("/console/").status_code == 303


def test_signing_out_ends_the_session_here_and_not_only_the_cookie(office: Office) -> None:
    browser = office.signed_in(Role.VIEWER)
    token = browser.token
    assert browser.post("/console/sign-out").headers["location"] == "/console/sign-in"
    assert browser.token != token
    thief = office.browser()
    thief.token = token
    assert thief.get("/console/account").status_code == 303


def test_a_code_of_the_app_is_needed_and_works_once(office: Office) -> None:
    with time_machine.travel(MORNING, tick=False) as clock:
        secret, _ = with_app(office, "alice@example.org")
        browser = half_signed_in(office, "alice@example.org")
        at_stage = browser.token
        # A right password alone opens nothing.
        assert browser.get("/console/").headers["location"].startswith("/console/sign-in/code")
        assert browser.post("/console/account/name", name="x").status_code == 303
        assert browser.post("/console/sign-in/code", code="000000").status_code == 400
        code = pyotp.TOTP(secret).now()
        assert browser.post("/console/sign-in/code", code=code).status_code == 303
        assert browser.token != at_stage
        assert browser.get("/console/").status_code == 200
        again = half_signed_in(office, "alice@example.org")
        assert again.post("/console/sign-in/code", code=code).status_code == 400
        # Nor does an earlier code work once a later one was used.
        earlier = pyotp.TOTP(secret).at(MORNING - timedelta(seconds=30))
        assert again.post("/console/sign-in/code", code=earlier).status_code == 400
        clock.shift(timedelta(seconds=30))
        fresh = pyotp.TOTP(secret).now()
        assert again.post("/console/sign-in/code", code=fresh).status_code == 303


def test_a_recovery_code_works_once_however_it_is_typed(office: Office) -> None:
    _, codes = with_app(office, "alice@example.org")
    browser = half_signed_in(office, "alice@example.org")
    answer = browser.post("/console/sign-in/code", code=f" {codes[0].upper().replace('-', ' ')}")
    assert answer.headers["location"] == "/console/account#recovery"
    assert "9 of 10 left" in browser.get("/console/account").text
    again = half_signed_in(office, "alice@example.org")
    assert again.post("/console/sign-in/code", code=codes[0]).status_code == 400


@pytest.mark.slow
def test_codes_cannot_be_guessed_in_a_day(office: Office) -> None:
    secret, _ = with_app(office, "alice@example.org")
    refused = 0
    with time_machine.travel(MORNING, tick=False) as clock:
        browser = half_signed_in(office, "alice@example.org")
        for _ in range(4):
            for _ in range(11):
                answer = browser.post("/console/sign-in/code", code="000000")
                refused += answer.status_code == 400
            clock.shift(timedelta(minutes=20))
            browser = half_signed_in(office, "alice@example.org")
        code = pyotp.TOTP(secret).now()
        assert browser.post("/console/sign-in/code", code=code).status_code == 429
    assert refused == 30


def test_who_has_to_gets_in_only_with_an_app(open_office: Callable[..., Office]) -> None:
    office = open_office()
    office.user("alice@example.org", name="Alice")
    browser = office.browser()
    assert browser.sign_in("alice@example.org").headers["location"] == "/console/account/factor"
    assert browser.get("/console/").headers["location"].startswith("/console/account/factor")
    assert browser.post("/console/account/name", name="x").status_code == 303
    page = browser.get("/console/account/factor")
    assert page.text.count("<svg") == 1
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", page.text)
    assert secret
    at_stage = browser.token
    assert browser.post("/console/account/factor", code="12").status_code == 400
    code = pyotp.TOTP(secret[1].replace(" ", "")).now()
    done = browser.post("/console/account/factor", code=code)
    codes = re.findall(r"<li>([a-z2-7-]{19})</li>", done.text)
    assert len(set(codes)) == 10
    assert browser.token != at_stage
    assert browser.get("/console/").status_code == 200
    assert codes[0] not in browser.get("/console/account").text
    # What proved the app is used up with that.
    again = half_signed_in(office, "alice@example.org")
    assert again.post("/console/sign-in/code", code=code).status_code == 400


def test_a_forgotten_password_is_replaced_by_a_link_that_works_once(office: Office) -> None:
    secret, _ = with_app(office, "alice@example.org", role=Role.EDITOR)
    elsewhere = office.signed_in(Role.EDITOR, "alice@example.org")
    browser = office.browser()
    browser.get("/console/forgot")
    known = browser.post("/console/forgot", email="alice@example.org")
    unknown = browser.post("/console/forgot", email="nobody@example.org")
    assert known.text == unknown.text
    assert mails(office) == 1
    path = link_in_mail(office, "alice@example.org")
    # A scanner that follows the link changes nothing.
    assert browser.get(path).status_code == 200
    assert browser.get(path).status_code == 200
    assert (
        "the two passwords differ" in browser.post(path, password="a" * 5 + PASSWORD).text.lower()
    )
    new = "another horse, another staple"
    assert browser.post(path, password=new, again=new).status_code == 303
    assert browser.post(path, password=new, again=new).status_code == 410
    assert browser.get(path).status_code == 410
    assert elsewhere.get("/console/").status_code == 303
    assert office.browser().sign_in("alice@example.org").status_code == 400
    # The app is asked for as ever.
    answer = browser.sign_in("alice@example.org", new)
    assert answer.headers["location"].startswith("/console/sign-in/code")
    assert browser.post("/console/sign-in/code", code=pyotp.TOTP(secret).now()).status_code == 303


def test_links_to_passwords_end_by_time_and_by_any_newer_password(office: Office) -> None:
    office.user("alice@example.org")
    browser = office.browser()
    with time_machine.travel(MORNING, tick=False) as clock:
        browser.get("/console/forgot")
        browser.post("/console/forgot", email="alice@example.org")
        path = link_in_mail(office, "alice@example.org")
        clock.shift(timedelta(minutes=31))
        assert browser.get(path).status_code == 410
        assert browser.post(path, password=PASSWORD, again=PASSWORD).status_code == 410
        browser.post("/console/forgot", email="alice@example.org")
        path = link_in_mail(office, "alice@example.org")
        alice = office.signed_in(Role.VIEWER, "alice@example.org")
        new = "another horse, another staple"
        changed = alice.post("/console/account/password", current=PASSWORD, password=new, again=new)
        assert changed.status_code == 303
        assert browser.get(path).status_code == 410
    assert browser.get("/console/password/nonsense").status_code == 410


def test_nobodys_mailbox_is_filled_with_links(office: Office) -> None:
    office.user("alice@example.org")
    browser = office.browser()
    browser.get("/console/forgot")
    for _ in range(6):
        assert browser.post("/console/forgot", email="alice@example.org").status_code == 200
    assert mails(office) == 3


def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(office: Office) -> None:
    here = office.signed_in(Role.VIEWER, "alice@example.org")
    there = office.signed_in(Role.VIEWER, "alice@example.org")
    before = here.token
    new = "another horse, another staple"
    for current, password, again in (
        ("wrong", new, new),
        (PASSWORD, "short", "short"),
        (PASSWORD, new, new + "x"),
        (PASSWORD, "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaa"),
        (PASSWORD, "abcdefghijklmnop", "abcdefghijklmnop"),
    ):
        form = {"current": current, "password": password, "again": again}
        assert here.post("/console/account/password", **form).status_code == 400
    form = {"current": PASSWORD, "password": new, "again": new}
    assert here.post("/console/account/password", **form).status_code == 303
    assert here.token != before
    assert here.get("/console/account").status_code == 200
    assert there.get("/console/account").status_code == 303
    assert mails(office) == 1


@pytest.mark.slow
def test_ones_sessions_are_listed_and_ended_but_not_those_of_others(office: Office) -> None:
    here = office.signed_in(Role.VIEWER, "alice@example.org")
    there = office.signed_in(Role.VIEWER, "alice@example.org")
    bob = office.signed_in(Role.VIEWER, "bob@example.org")
    page = here.get("/console/account").text
    numbers = re.findall(r"/sessions/(\d+)/end", page)
    assert len(numbers) == 1
    bob.post(f"/console/account/sessions/{numbers[0]}/end")
    assert there.get("/console/").status_code == 200
    here.post(f"/console/account/sessions/{numbers[0]}/end")
    assert there.get("/console/").status_code == 303
    assert bob.post(f"/console/account/sessions/{9**30}/end").status_code == 404


def test_names_are_text_wherever_they_are_shown(office: Office) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}"
    owner = office.signed_in(Role.OWNER)
    owner.post("/console/account/name", name=evil)
    owner.post("/console/users", email="eve@example.org", name=evil, role="viewer")
    owner.client.get("/console/account", headers={"user-agent": evil})
    for path in (
        "/console/",
        "/console/account",
        "/console/users",
        "/console/users/2",
        "/console/log",
    ):
        answer = owner.get(path)
        assert answer.status_code == 200, path
        assert set(re.findall(r"<script[^>]*>", answer.text)) <= {_OURS}
        assert "<img" not in answer.text
        assert "49" not in answer.text.split("<main")[1].split("alert(1)")[-1][:20]
    notice = table_of(OutboxEmail)
    with reading(office.parts.database) as session:
        row = session.execute(select(notice).where(notice.c.email == "eve@example.org")).one()
    assert "<script" not in row.html
    assert "<img src=x" not in row.html
    assert "\n" not in row.subject


def test_a_name_brings_no_header_and_no_line_into_anything(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    answer = owner.post(
        "/console/users",
        email="eve@example.org\r\nBcc: all@example.org",
        name="x",
        role="viewer",
    )
    assert answer.status_code == 400
    owner.post("/console/account/name", name="A\r\nSet-Cookie: b=c\x00")
    assert "ASet-Cookie: b=c" in owner.get("/console/account").text
    assert mails(office) == 0


def test_who_is_invited_chooses_a_password_and_gets_in(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    answer = owner.post("/console/users", email="new@example.org", name="New", role="editor")
    assert answer.headers["location"] == "/console/users?done=invited"
    path = link_in_mail(office, "new@example.org")
    browser = office.browser()
    browser.get(path)
    assert browser.post(path, password=PASSWORD, again=PASSWORD).status_code == 303
    assert browser.sign_in("new@example.org").headers["location"] == "/console/"
    again = owner.post("/console/users", email="NEW@example.org", role="editor")
    assert again.status_code == 400
    assert "nother user has this address already" in again.text
    assert owner.post("/console/users", email="x@example.org", role="god").status_code == 400


def test_the_last_owner_stays_and_others_go(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    editor = office.signed_in(Role.EDITOR)
    for what, form in (("remove", {}), ("role", {"role": "viewer"})):
        answer = owner.post(f"/console/users/1/{what}", current=PASSWORD, **form)
        assert answer.status_code == 400
        assert "This is the last owner" in answer.text
    assert owner.post("/console/users/2/sessions/end").status_code == 303
    assert editor.get("/console/").status_code == 303
    assert owner.post("/console/users/2/remove").headers["location"].endswith("removed")
    assert owner.get("/console/users/2").status_code == 404
    assert owner.post("/console/users/99999999999999999999/remove").status_code == 404
    assert log(office) == ["sessions ended", "user removed"]


@pytest.mark.slow
def test_a_lost_app_is_taken_away_by_an_owner(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    with_app(office, "alice@example.org")
    assert owner.post("/console/users/2/factor/reset").status_code == 303
    assert office.browser().sign_in("alice@example.org").headers["location"] == "/console/"


def test_changing_the_app_needs_the_password(office: Office) -> None:
    browser = office.signed_in(Role.VIEWER)
    assert browser.post("/console/account/factor/begin", current="wrong").status_code == 400
    assert browser.get("/console/account/factor").headers["location"] == "/console/account"
    assert browser.post("/console/account/recovery-codes", current=PASSWORD).status_code == 400
    answer = browser.post("/console/account/factor/begin", current=PASSWORD)
    assert answer.headers["location"] == "/console/account/factor"
    secret = re.search(r"<code>([A-Z2-7 ]+)</code>", browser.get("/console/account/factor").text)
    assert secret
    code = pyotp.TOTP(secret[1].replace(" ", "")).now()
    assert browser.post("/console/account/factor", code=code).status_code == 200
    assert browser.post("/console/account/recovery-codes", current="wrong").status_code == 400
    assert browser.post("/console/account/recovery-codes", current=PASSWORD).status_code == 200
    assert browser.post("/console/account/factor/remove", current="wrong").status_code == 400
    assert browser.post("/console/account/factor/remove", current=PASSWORD).status_code == 303
    assert browser.sign_in("viewer@example.org").headers["location"] == "/console/"


def test_the_log_is_read_page_by_page(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    with transaction(office.parts.database) as session:
        for number in range(60):
            who = audit.Actor(None, "somebody")
            audit.record(session, who, "did", now=MORNING, subject=f"thing {number}")
    first = owner.get("/console/log").text
    assert "thing 59" in first
    assert "thing 10" in first
    assert "thing 9<" not in first
    older = re.search(r"/console/log\?before=\d+", first)
    assert older
    assert "thing 9<" in owner.get(older[0]).text
    for odd in ("x", "-1", "9" * 18, "²"):
        assert owner.get("/console/log", params={"before": odd}).status_code == 200
    assert owner.get("/console/log", params={"before": "9" * 40}).status_code == 422


def test_bytes_that_are_no_text_end_in_words(office: Office) -> None:
    browser = office.browser()
    browser.get("/console/sign-in")
    head = {"content-type": "application/x-www-form-urlencoded", "accept": "text/html"}
    csrf = f"csrf={browser.csrf}&".encode()
    for body in (b"email=%ff%00&password=%ff%00", b"email=a@b.example&password=\xff", b"email[]=%"):
        answer = browser.client.post("/console/sign-in", content=csrf + body, headers=head)
        assert answer.status_code == 400
    files = {"email": ("x.txt", b"\x00\xff"), "csrf": (None, browser.csrf)}
    assert browser.client.post("/console/sign-in", files=files).status_code == 422
    assert browser.get("/console/nowhere").status_code == 404
    browser.token = "x" * 5000
    assert browser.get("/console/").status_code == 303


def test_a_cookie_that_is_not_ours_is_replaced(office: Office) -> None:
    browser = office.browser()
    browser.token = "planted"
    browser.get("/console/sign-in")
    assert len(browser.token) == 43
    assert session_cookie.safe_next("/console/log") == "/console/log"
