"""The console by keyboard alone, in a real browser."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest
from playwright.sync_api import Page, expect

import newsletter.web
from newsletter.accounts import sessions, two_factor, users
from newsletter.accounts.models import Role, SignInStage
from newsletter.db.engine import transaction
from tests.browser.chromium import accessible
from tests.browser.console import RunningService

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(tab: Page, service: RunningService) -> Page:
    tab.goto(f"{service.url}/console/")
    return tab


def test_g_and_a_letter_open_a_page(tab: Page, service: RunningService) -> None:
    for key, path in (("u", "users"), ("l", "log"), ("o", "")):
        tab.keyboard.type(f"g{key}")
        # Loaded, and not only begun: its script has to be there for the next keys.
        tab.wait_for_url(f"{service.url}/console/{path}")


def test_a_letter_without_g_before_it_does_nothing(tab: Page, service: RunningService) -> None:
    tab.keyboard.type("u")
    tab.keyboard.type("gxu")
    tab.wait_for_timeout(100)
    expect(tab).to_have_url(f"{service.url}/console/")


def test_what_is_typed_into_a_field_is_typed(tab: Page, service: RunningService) -> None:
    tab.goto(f"{service.url}/console/users")
    name = tab.get_by_label("Name")
    name.focus()
    tab.keyboard.type("gl?/")
    assert name.input_value() == "gl?/"
    expect(tab).to_have_url(f"{service.url}/console/users")


def test_help_lists_the_keys_and_gives_the_focus_back(tab: Page) -> None:
    opener = tab.get_by_role("button", name="Keyboard")
    opener.focus()
    tab.keyboard.type("?")
    help_ = tab.get_by_role("dialog", name="Keyboard")
    expect(help_).to_be_visible()
    expect(help_).to_contain_text("Users")
    accessible(tab)
    tab.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    expect(opener).to_be_focused()


def test_single_keys_can_be_switched_off_and_stay_off(tab: Page, service: RunningService) -> None:
    tab.keyboard.type("?")
    tab.get_by_label("Single-key shortcuts").uncheck()
    tab.keyboard.press("Escape")
    tab.reload()
    tab.keyboard.type("gu?")
    tab.wait_for_timeout(100)
    expect(tab).to_have_url(f"{service.url}/console/")
    expect(tab.get_by_role("dialog")).to_have_count(0)
    tab.keyboard.press("Control+k")
    expect(tab.get_by_role("combobox")).to_be_focused()
    tab.keyboard.press("Escape")
    tab.get_by_role("button", name="Keyboard").click()
    tab.get_by_label("Single-key shortcuts").check()
    tab.keyboard.press("Escape")
    tab.keyboard.type("gu")
    expect(tab).to_have_url(f"{service.url}/console/users")


def test_the_palette_finds_a_page_by_some_of_its_letters(
    tab: Page, service: RunningService
) -> None:
    tab.keyboard.press("Control+k")
    tab.keyboard.type("use")
    expect(tab.get_by_role("option", selected=True)).to_contain_text("Users")
    accessible(tab)
    tab.keyboard.press("Enter")
    expect(tab).to_have_url(f"{service.url}/console/users")


def test_the_palette_knows_the_actions_of_the_page_and_moves_by_arrows(
    tab: Page, service: RunningService
) -> None:
    tab.goto(f"{service.url}/console/account")
    tab.keyboard.press("Control+k")
    tab.keyboard.type("this page")
    first = tab.get_by_role("option", selected=True).inner_text()
    tab.keyboard.press("ArrowDown")
    second = tab.get_by_role("option", selected=True).inner_text()
    assert first != second
    tab.keyboard.press("ArrowUp")
    assert tab.get_by_role("option", selected=True).inner_text() == first
    tab.keyboard.press("Control+A")
    tab.keyboard.type("no such thing")
    expect(tab.locator("#palette").get_by_role("status")).to_contain_text("Nothing")


def test_the_palette_only_brings_what_does_harm_to_the_fingers(
    tab: Page, service: RunningService
) -> None:
    tab.goto(f"{service.url}/console/users")
    with tab.expect_navigation():
        tab.get_by_role("main").get_by_role("link", name="owner@example.org").click()
    tab.keyboard.press("Control+k")
    tab.keyboard.type("remove")
    tab.keyboard.press("Enter")
    expect(tab.get_by_text("Remove…", exact=True)).to_be_focused()
    expect(tab.get_by_role("button", name="Remove user")).to_be_hidden()


def test_the_palette_only_focuses_what_removes_an_app_or_ends_sessions(
    tab: Page, service: RunningService
) -> None:
    now = datetime.now(UTC)
    with transaction(service.parts.database) as session:
        user = users.add(
            session, "lost@example.org", name="", role=Role.VIEWER, max_owners=9, now=now
        ).id
        code = pyotp.TOTP(two_factor.begin(session, user)).at(now)
        assert two_factor.prove(session, user, code, now=now)
        hour = timedelta(hours=1)
        sessions.begin(session, user, SignInStage.FULL, lasts=hour, now=now, ip="", browser="")
    tab.goto(f"{service.url}/console/users/{user}")
    tab.evaluate(
        """() => { window.pressed = [];
        document.addEventListener("submit", event => {
          event.preventDefault();
          window.pressed.push(event.submitter.textContent);
        }, true); }"""
    )
    for name in ("Remove app", "End all sessions"):
        tab.keyboard.press("Control+k")
        tab.keyboard.type(name)
        tab.keyboard.press("Enter")
        expect(tab.get_by_role("button", name=name)).to_be_focused()
        assert name not in tab.evaluate("window.pressed")
        tab.keyboard.press("Enter")
        assert name in tab.evaluate("window.pressed")


def test_every_button_that_removes_or_stops_something_is_marked_for_the_palette() -> None:
    doing = re.compile(
        "Cancel|Create new|Delete|End|Erase|Hide|Lift|Pause|Remove|Skip|Stop|Suppress|Withdraw"
        "|Throw"
    )
    pages = Path(newsletter.web.__file__).with_name("pages") / "console"
    buttons = [
        (path.name, tag, words)
        for path in pages.glob("*.html")
        for tag, words in re.findall(
            r"<button\b((?:{{.*?}}|[^>])*)>(.*?)</button>", path.read_text()
        )
        if doing.match(words.removeprefix('{{ "'))
    ]
    assert len(buttons) > 15
    for button in buttons:
        assert re.search("button-danger|data-careful", button[1]), button


def test_j_and_k_move_through_the_rows(tab: Page, service: RunningService) -> None:
    tab.goto(f"{service.url}/console/users")
    row = tab.get_by_role("main").get_by_role("link", name="owner@example.org")
    tab.keyboard.type("j")
    expect(row).to_be_focused()
    tab.keyboard.type("k")
    expect(row).to_be_focused()


def test_without_scripts_nothing_is_offered_that_needs_them(service: RunningService) -> None:
    context = service.browser.new_context(java_script_enabled=False)
    signed_in = service.signed_in(Role.VIEWER)
    context.add_cookies(signed_in.context.cookies())  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{service.url}/console/")
    expect(page.get_by_role("link", name="Overview", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Go to")).to_have_count(0)
    expect(page.get_by_role("button", name="Keyboard")).to_have_count(0)
    context.close()
    signed_in.context.close()
