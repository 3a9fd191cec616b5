"""Writing and previewing an issue in a real browser: by keyboard, and without losing a word."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, Route, expect

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import parse_issue
from tests.browser.chromium import accessible
from tests.browser.console import RunningService, sound

pytestmark = pytest.mark.browser

TEXT = (
    "---\nsubject: \"{title}, {{{{ name | default('reader') }}}}\"\npreheader: One query to try.\n"
    "title: {title}\nslug: {slug}\n---\n\nDear {{{{ name }}}},\n\n{words}\n"
)
#: The newest one: the one before it stays until this one is there.
FRAME = "#pane iframe >> nth=-1"
ADA = Actor(None, "ada@example.org")


def keep(
    service: RunningService, slug: str, words: str = "Good day.", *, title: str = "Four alarms"
) -> None:
    with transaction(service.parts.database) as session:
        draft = parse_issue(TEXT.format(slug=slug, words=words, title=title), name="x.md")
        store.save(session, draft, by=ADA, now=datetime.now(UTC))


def latest(service: RunningService, slug: str) -> str:
    with reading(service.parts.database) as session:
        return store.revision_of(session, store.find(session, slug)).source


def editor(tab: Page, service: RunningService, slug: str) -> Page:
    """The editor, with the checks of what stands in it done."""
    tab.goto(f"{service.url}/console/issues/{slug}/edit")
    expect(tab.locator("#findings [data-looked]")).to_be_visible()
    return tab


def mail(tab: Page) -> str:
    """What the frame shows, once there is one again."""
    expect(tab.locator("#pane iframe")).to_have_count(1)
    return tab.frame_locator(FRAME).locator("body").inner_text()


def type_at_the_end(tab: Page, words: str) -> None:
    tab.locator("#text").focus()
    tab.keyboard.press("Control+End")
    tab.keyboard.type(words)


def test_an_issue_is_written_mended_and_stored_by_the_keyboard_alone(
    tab: Page, service: RunningService
) -> None:
    tab.goto(f"{service.url}/console/issues")
    tab.keyboard.press("Control+k")
    tab.keyboard.type("new issue")
    with tab.expect_navigation():
        tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="New issue")).to_be_visible()
    tab.keyboard.press("Control+k")
    tab.keyboard.type("write a letter")
    with tab.expect_navigation():
        tab.keyboard.press("Enter")
    text = tab.locator("#text")
    expect(text).to_have_value(re.compile("slug: letter-"))
    text.focus()
    tab.keyboard.press("Control+a")
    tab.keyboard.insert_text(TEXT.format(slug="typed", words="Hello {{ nmae }}.", title="Typed"))
    line = tab.get_by_role("button", name="Line 10")
    expect(line).to_be_visible()
    tab.keyboard.press("Tab")
    while not line.evaluate("line => line === document.activeElement"):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    # The line of the mistake is selected: to type is to mend it.
    tab.keyboard.insert_text("Hello, world.")
    expect(tab.locator("#findings [data-renders]")).to_be_visible()
    expect(tab.frame_locator(FRAME).get_by_text("Hello, world.")).to_be_visible()
    assert "Dear Robin Example" in mail(tab)
    tab.keyboard.press("Control+s")
    expect(tab.get_by_text("Saved as revision 1.")).to_be_visible()
    # The words are there before the script that puts the cursor back.
    tab.wait_for_load_state()
    assert latest(service, "typed") == TEXT.format(
        slug="typed", words="Hello, world.", title="Typed"
    )
    # Where the cursor was, it is.
    tab.keyboard.insert_text(" Again.")
    tab.keyboard.press("Control+s")
    expect(tab.get_by_text("Saved as revision 2.")).to_be_visible()
    assert "Hello, world. Again." in latest(service, "typed")


@pytest.mark.slow
def test_the_mail_follows_what_is_typed_and_the_history_stays_short(
    tab: Page, service: RunningService
) -> None:
    keep(service, "followed")
    editor(tab, service, "followed")
    before = tab.evaluate("history.length")
    for number in range(3):
        type_at_the_end(tab, f"Sentence {number}. ")
        frame = tab.frame_locator(FRAME)
        expect(frame.get_by_text(f"Sentence {number}.").first).to_be_visible()
    assert tab.evaluate("history.length") == before
    tab.get_by_role("radio", name="Dark").check()
    expect(tab.locator("#pane iframe")).to_have_count(1)
    back = tab.frame_locator(FRAME).locator("body")
    expect(back).to_have_css("background-color", "rgb(21, 20, 19)")


def test_what_is_not_stored_survives_a_closed_page(tab: Page, service: RunningService) -> None:
    keep(service, "closed")
    editor(tab, service, "closed")
    type_at_the_end(tab, "Never stored.")
    expect(tab.locator("#standing")).to_have_text("Not saved yet")
    editor(tab, service, "closed")
    assert "Never stored." not in tab.locator("#text").input_value()
    expect(tab.locator("#kept")).to_contain_text("is in this browser")
    tab.get_by_role("button", name="Restore").click()
    assert tab.locator("#text").input_value().endswith("Never stored.")
    tab.keyboard.press("Control+s")
    expect(tab.get_by_text("Saved as revision 2.")).to_be_visible()
    expect(tab.locator("#kept")).to_be_hidden()
    assert latest(service, "closed").rstrip().endswith("Never stored.")
    editor(tab, service, "closed")
    expect(tab.locator("#kept")).to_be_hidden()


def test_a_kept_text_can_be_thrown_away(tab: Page, service: RunningService) -> None:
    keep(service, "thrown")
    editor(tab, service, "thrown")
    type_at_the_end(tab, "Nonsense.")
    expect(tab.locator("#standing")).to_have_text("Not saved yet")
    editor(tab, service, "thrown")
    tab.get_by_role("button", name="Discard").click()
    editor(tab, service, "thrown")
    expect(tab.locator("#kept")).to_be_hidden()


@pytest.mark.slow
def test_a_kept_text_overwrites_nobody_who_stored_since(tab: Page, service: RunningService) -> None:
    keep(service, "since", "The first word.")
    editor(tab, service, "since")
    type_at_the_end(tab, "Mine.")
    expect(tab.locator("#standing")).to_have_text("Not saved yet")
    keep(service, "since", "The second word.")
    editor(tab, service, "since")
    expect(tab.locator("#kept")).to_contain_text(
        "based on revision 1, which is no longer the latest"
    )
    tab.get_by_role("button", name="Restore").click()
    tab.keyboard.press("Control+s")
    expect(tab.get_by_role("alert").first).to_contain_text("ada@example.org saved revision 2")
    expect(tab.locator(".diff del")).to_contain_text(["second"])
    assert tab.locator("#text").input_value().endswith("Mine.")
    sound_here(tab)


def test_a_session_that_ends_in_mid_edit_is_told_and_loses_nothing(
    tab: Page, service: RunningService
) -> None:
    keep(service, "lost")
    editor(tab, service, "lost")
    cookies = tab.context.cookies()
    tab.context.clear_cookies()
    type_at_the_end(tab, "Typed too late.")
    expect(tab.locator("#lost")).to_be_visible()
    expect(tab.locator("#lost").get_by_role("link")).to_have_attribute("href", "/console/sign-in")
    # Whoever stores all the same has the text given back by the server as well.
    tab.keyboard.press("Control+s")
    expect(tab.get_by_role("heading", name="Not saved yet")).to_be_visible()
    assert tab.get_by_label("Your text").input_value().endswith("Typed too late.")
    tab.context.add_cookies(cookies)  # type: ignore[arg-type]
    editor(tab, service, "lost")
    tab.get_by_role("button", name="Restore").click()
    tab.keyboard.press("Control+s")
    expect(tab.get_by_text("Saved as revision 2.")).to_be_visible()
    assert latest(service, "lost").rstrip().endswith("Typed too late.")


def left_unstored(tab: Page, service: RunningService, slug: str, words: str) -> None:
    """An editor that was closed with these words in it, and is opened again."""
    editor(tab, service, slug)
    type_at_the_end(tab, words)
    editor(tab, service, slug)
    expect(tab.locator("#kept")).to_be_visible()


@contextmanager
def a_store_under_way(tab: Page) -> Iterator[None]:
    """Ctrl S, and no answer to it before the block is over."""
    asked: list[Route] = []
    tab.route("**/console/issues/**/edit", lambda route: asked.append(route), times=1)
    with tab.expect_request(lambda one: one.method == "POST" and one.url.endswith("/edit")):
        tab.keyboard.press("Control+s")
    yield
    asked[0].continue_()


def test_what_is_typed_while_the_text_is_stored_goes_on(tab: Page, service: RunningService) -> None:
    keep(service, "under-way")
    editor(tab, service, "under-way")
    type_at_the_end(tab, "Before.")
    with a_store_under_way(tab):
        tab.keyboard.type(" After.")
    expect(tab.get_by_text("Saved as revision 2.")).to_be_visible()
    assert latest(service, "under-way").endswith("Before.")
    expect(tab.locator("#text")).to_have_value(re.compile(r"Before\. After\.$"))
    expect(tab.locator("#standing")).to_have_text("Not saved yet")
    expect(tab.locator("#kept")).to_be_hidden()
    tab.wait_for_load_state()
    # Made from one's own revision, and at the place where it was: nobody is in conflict here.
    tab.keyboard.type(" And on.")
    tab.keyboard.press("Control+s")
    expect(tab.get_by_text("Saved as revision 3.")).to_be_visible()
    assert latest(service, "under-way").endswith("Before. After. And on.")
    editor(tab, service, "under-way")
    expect(tab.locator("#kept")).to_be_hidden()


def test_what_is_typed_while_a_store_is_refused_goes_on(tab: Page, service: RunningService) -> None:
    keep(service, "refused")
    editor(tab, service, "refused")
    type_at_the_end(tab, "{{ nmae")
    with a_store_under_way(tab):
        tab.keyboard.type(" }}")
    expect(tab.get_by_role("alert").first).to_contain_text("Not saved")
    expect(tab.locator("#text")).to_have_value(re.compile(r"\{\{ nmae \}\}$"))
    expect(tab.locator("#kept")).to_be_hidden()


def test_a_text_that_was_refused_is_kept_before_it_is_mended(
    tab: Page, service: RunningService
) -> None:
    keep(service, "mended")
    editor(tab, service, "mended")
    type_at_the_end(tab, "A long day's work. {{ nmae }}")
    tab.keyboard.press("Control+s")
    expect(tab.get_by_role("alert").first).to_contain_text("Not saved")
    expect(tab.locator("#standing")).to_have_text("Not saved yet")
    tab.keyboard.type("x")
    tab.keyboard.press("Backspace")
    editor(tab, service, "mended")
    tab.get_by_role("button", name="Restore").click()
    expect(tab.locator("#text")).to_have_value(re.compile("A long day's work."))
    expect(tab.locator("#kept")).to_be_hidden()


def test_a_kept_text_outlives_a_store_of_another(tab: Page, service: RunningService) -> None:
    keep(service, "asked")
    left_unstored(tab, service, "asked", "An afternoon's work.")
    # Put off: a word is mended first.
    type_at_the_end(tab, "A word.")
    tab.keyboard.press("Control+s")
    expect(tab.get_by_text("Saved as revision 2.")).to_be_visible()
    expect(tab.locator("#kept")).to_contain_text("is in this browser, based on revision 1")
    tab.get_by_role("button", name="Restore").click()
    expect(tab.locator("#text")).to_have_value(re.compile("An afternoon's work.$"))


def test_a_new_issue_that_is_stored_takes_no_other_with_it(
    tab: Page, service: RunningService
) -> None:
    def begin(template: str) -> None:
        tab.goto(f"{service.url}/console/issues/_edit?template={template}")
        expect(tab.locator("#findings [data-looked]")).to_be_visible()

    begin("letter")
    type_at_the_end(tab, "A letter for next week.")
    begin("digest")
    expect(tab.locator("#kept")).to_be_visible()
    type_at_the_end(tab, "A word.")
    tab.keyboard.press("Control+s")
    expect(tab.get_by_text("Saved as revision 1.")).to_be_visible()
    expect(tab.locator("#kept")).to_be_hidden()
    begin("digest")
    tab.get_by_role("button", name="Restore").click()
    expect(tab.locator("#text")).to_have_value(re.compile("A letter for next week.$"))
    expect(tab.locator("#kept")).to_be_hidden()


def test_what_is_typed_beside_a_kept_text_is_kept_too(tab: Page, service: RunningService) -> None:
    keep(service, "beside")
    left_unstored(tab, service, "beside", "The older one.")
    cookies = tab.context.cookies()
    tab.context.clear_cookies()
    type_at_the_end(tab, "The newer one.")
    expect(tab.locator("#lost")).to_contain_text("Your text is saved in this browser")
    tab.context.add_cookies(cookies)  # type: ignore[arg-type]
    editor(tab, service, "beside")
    text, take = tab.locator("#text"), tab.get_by_role("button", name="Restore")
    expect(tab.locator("#kept")).to_contain_text("1 more after this one")
    # The newest first, and each of them as often as one likes.
    for words in ("newer", "older", "newer"):
        take.click()
        expect(text).to_have_value(re.compile(f"The {words} one.$"))
    tab.get_by_role("button", name="Discard").click()
    expect(tab.locator("#kept")).to_be_hidden()
    editor(tab, service, "beside")
    take.click()
    expect(text).to_have_value(re.compile("The newer one.$"))
    expect(tab.locator("#kept")).to_be_hidden()


def test_who_is_signed_out_is_told_when_the_browser_keeps_nothing(
    tab: Page, service: RunningService
) -> None:
    keep(service, "full")
    editor(tab, service, "full")
    tab.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    tab.context.clear_cookies()
    type_at_the_end(tab, "A word.")
    expect(tab.locator("#lost")).to_contain_text("cannot save a copy")
    expect(tab.locator("#lost")).not_to_contain_text("is saved", use_inner_text=True)


def test_without_a_script_everything_works_by_buttons(service: RunningService) -> None:
    signed_in = service.signed_in(Role.EDITOR)
    plain = service.browser.new_context(java_script_enabled=False)
    plain.add_cookies(signed_in.context.cookies())  # type: ignore[arg-type]
    tab = plain.new_page()
    keep(service, "plain")
    tab.goto(f"{service.url}/console/issues/plain/edit")
    tab.locator("#text").fill(TEXT.format(slug="plain", words="{{ nmae }}", title="Plain"))
    tab.get_by_role("button", name="Check").click()
    expect(tab.locator("#findings")).to_contain_text("there is no placeholder nmae".capitalize())
    tab.locator("#text").fill(TEXT.format(slug="plain", words="By hand.", title="Plain"))
    tab.get_by_role("button", name="Preview").click()
    expect(tab.frame_locator(FRAME).get_by_text("By hand.")).to_be_visible()
    tab.get_by_role("button", name="Save").click()
    expect(tab.get_by_text("Saved as revision 2.")).to_be_visible()
    plain.close()
    signed_in.context.close()


def test_a_hostile_mail_runs_nothing_and_reaches_nothing(
    tab: Page, service: RunningService
) -> None:
    keep(service, "hostile", "<script>top.hacked = 1</script> [x](javascript:top.hacked=1)")
    dialogs: list[str] = []
    tab.on("dialog", lambda dialog: dialogs.append(dialog.message))
    tab.goto(f"{service.url}/console/issues/hostile/preview")
    body = tab.frame_locator(".mail-stage iframe").locator("body")
    expect(body).to_contain_text("top.hacked")
    # What the sanitiser lets nobody write, put there all the same: the frame holds.
    answer = tab.request.get(f"{service.url}/console/issues/hostile/mail")
    policy = answer.headers["content-security-policy"]

    def evil(route) -> None:
        route.fulfill(
            status=200,
            headers={"content-type": "text/html", "content-security-policy": policy},
            body="<script>top.hacked = 1; alert(1)</script><img src=x onerror='top.hacked = 1'>"
            "<form action='/console/sign-out' method=post><button>go</button></form>",
        )

    tab.route("**/hostile/mail?*", evil)
    tab.reload()
    go = tab.frame_locator(".mail-stage iframe").get_by_role("button", name="go")
    go.click()
    assert tab.evaluate("window.hacked") is None
    assert dialogs == []
    tab.goto(f"{service.url}/console/")
    expect(tab.get_by_role("heading", name="Overview")).to_be_visible()


def test_the_preview_changes_without_a_button_and_its_address_says_how(
    tab: Page, service: RunningService
) -> None:
    keep(service, "seen")
    tab.goto(f"{service.url}/console/issues/seen/preview")
    tab.get_by_role("radio", name="Phone").check()
    expect(tab.locator("iframe.mail-phone")).to_be_visible()
    tab.get_by_role("radio", name="Text").check()
    expect(tab.get_by_label("Text part")).to_contain_text("Dear Robin Example")
    expect(tab).to_have_url(re.compile("part=text"))
    tab.get_by_label("As").fill("nobody@example.org")
    tab.keyboard.press("Enter")
    expect(tab.locator("#shown")).to_contain_text("No subscriber has this address")
    expect(tab).to_have_url(re.compile("person=nobody"))
    # The way back goes through the same views, and the switches with them.
    tab.go_back()
    expect(tab.get_by_label("Text part")).to_be_visible()
    expect(tab.get_by_role("radio", name="Text")).to_be_checked()
    # The words are there before the script that goes further back.
    tab.wait_for_load_state()
    tab.go_back()
    expect(tab.locator("iframe.mail-phone")).to_be_visible()
    expect(tab.get_by_role("radio", name="Mail")).to_be_checked()
    expect(tab.get_by_role("radio", name="Phone")).to_be_checked()


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "only typed"])
def test_a_test_and_the_checks_are_of_whom_was_chosen(
    tab: Page, service: RunningService, shown: bool
) -> None:
    keep(service, "chosen")
    tab.goto(f"{service.url}/console/issues/chosen/preview")
    to = tab.get_by_label("Addresses")
    to.fill("me@example.com")
    tab.get_by_role("radio", name="Phone").check()
    expect(tab.locator("iframe.mail-phone")).to_be_visible()
    tab.get_by_label("As").fill("stranger")
    if shown:
        tab.keyboard.press("Enter")
        expect(tab.locator("#shown iframe")).to_have_attribute("src", re.compile("person=stranger"))
        expect(to).to_have_value("me@example.com")
    for name, path in (("Check links and domain", "ask"), ("Send test email", "preview")):
        # What somebody sees is the answer; nothing outside has to be there for this.
        tab.route(f"**/chosen/{path}?*", lambda route: route.fulfill(status=204), times=1)
        with tab.expect_request(lambda one: one.method == "POST") as asked:
            tab.get_by_role("button", name=name).click()
        assert f"/chosen/{path}?" in asked.value.url
        assert "person=stranger" in asked.value.url
        assert "width=phone" in asked.value.url


def sound_here(tab: Page) -> None:
    """As ``sound``, of a page that only a post leads to."""
    for width in (375, 1440):
        tab.set_viewport_size({"width": width, "height": 900})
        accessible(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_every_page_is_sound_at_every_width_light_and_dark(
    tab: Page, service: RunningService
) -> None:
    keep(service, "sound", "Delete the alert.\n\n[Here](https://example.com/" + "x" * 200 + ")")
    keep(service, "sound", "Delete the " + "Donaudampfschifffahrt" * 8 + " alarm.", title="W" * 120)
    with transaction(service.parts.database) as session:
        approval.request(session, "sound", by=ADA, now=datetime.now(UTC), note="Please.")
    for name, path in (
        ("issues", ""),
        ("issue-new", "/_new"),
        ("issue-begin", "/_edit?template=digest"),
        ("issue-review", "/sound"),
        ("issue-changes", "/sound/changes"),
        ("issue-edit", "/sound/edit"),
        ("issue-preview", "/sound/preview?width=phone"),
        ("issue-source", "/sound/preview?part=source"),
    ):
        tab.goto(f"{service.url}/console/issues{path}")
        sound(tab, name)
