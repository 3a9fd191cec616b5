"""Issues in the console: written, kept when something goes wrong, reviewed and approved."""

import html
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from newsletter.accounts import audit, sessions, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import store
from newsletter.issues.models import Issue, Revision
from newsletter.issues.parsing.issue_file import parse_issue
from tests.conftest import NOW
from tests.newsletter.web.conftest import Browser, Office

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def text(words: str = "Good day.", *, slug: str = "news", **front: str) -> str:
    more = "".join(f"{key}: {value}\n" for key, value in front.items())
    return f"---\nsubject: Our news\nslug: {slug}\n{more}---\n\n{words}\n"


def keep(office: Office, source: str, *, by: str = "ada@example.org", later: int = 0) -> None:
    with transaction(office.parts.database) as session:
        draft = parse_issue(source, name="x.md")
        now = NOW + timedelta(minutes=later)
        store.save(session, draft, by=Actor(None, by), now=now)


def revisions(office: Office, slug: str = "news") -> list[str]:
    """The texts of an issue, the first one first."""
    with reading(office.parts.database) as session:
        found = store.revisions(session, store.find(session, slug))
        return [one.source for one in reversed(found)]


def typed(page: str, name: str = "text") -> str:
    """What stands in a field of a page."""
    found = re.search(rf'<textarea[^>]* name="{name}"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL)
    assert found, page
    return html.unescape(found[1])


def hidden(page: str, name: str) -> str:
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', page)
    assert found
    return found[1]


def edit(browser: Browser, words: str, *, base: int | str, slug: str = "news", **more: str):
    path = f"/console/issues/{slug}/edit"
    return browser.post(path, text=text(words, slug=slug), base=str(base), **more)


def test_a_new_issue_begins_with_a_text_that_can_be_stored(office: Office) -> None:
    editor = office.signed_in(Role.EDITOR)
    assert editor.get("/console/issues/_new").status_code == 200
    for template in ("letter", "digest"):
        begun = typed(editor.get(f"/console/issues/_edit?template={template}").text)
        # Browsers send every line break of a field as two characters.
        answer = editor.post("/console/issues/_edit", text=begun.replace("\n", "\r\n"))
        assert answer.status_code == 303
        slug = answer.headers["location"].removesuffix("/edit?done=stored").rpartition("/")[2]
        assert revisions(office, slug) == [begun]
        page = editor.get(answer.headers["location"]).text
        assert "Saved as revision 1." in page
        assert typed(page) == begun


def test_a_plain_text_digest_is_pasted_or_uploaded_and_not_stored_yet(office: Office) -> None:
    editor = office.signed_in(Role.EDITOR)
    digest = (
        "Our Digest — 2026-03-27#\n\nDeep Dives#\n\n[A title] · Airbnb · Source What it says.\n"
    )
    pasted = editor.post("/console/issues/_new", pasted=digest.replace("\n", "\r\n"))
    assert pasted.status_code == 200
    assert "### A title\n\n*Airbnb* · Source" in typed(pasted.text)
    uploaded = editor.client.post(
        "/console/issues/_new",
        data={"csrf": editor.csrf},
        files={"upload": ("digest.txt", digest.encode(), "text/plain")},
        headers={"accept": "text/html"},
    )
    assert typed(uploaded.text) == typed(pasted.text)
    assert hidden(uploaded.text, "base") == "0"
    with reading(office.parts.database) as session:
        assert session.scalar(select(func.count()).select_from(table_of(Issue))) == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "the file has no text"),
        (b"no title\n", "expected title and date here"),
        (b"\xff\xfe", "this is not UTF-8"),
        (b"x" * 200_001, "at most 200,000 bytes"),
        (b"Title \x00 - 2026-01-01", "a character that is not allowed"),
    ],
)
def test_what_is_no_digest_is_given_back_with_the_reason(
    office: Office, given: bytes, said: str
) -> None:
    editor = office.signed_in(Role.EDITOR)
    answer = editor.client.post(
        "/console/issues/_new",
        data={"csrf": editor.csrf, "pasted": "as I typed it"},
        files={"upload": ("d.txt", given, "text/plain")} if given else None,
        headers={"accept": "text/html"},
    )
    assert answer.status_code == 400
    if given:
        assert said.casefold() in html.unescape(answer.text).casefold()
    assert typed(answer.text, "pasted") == "as I typed it"


def test_an_edit_is_a_new_revision(office: Office) -> None:
    editor = office.signed_in(Role.EDITOR)
    keep(office, text("One."))
    page = editor.get("/console/issues/news/edit").text
    assert (typed(page), hidden(page, "base")) == (text("One."), "1")
    answer = edit(editor, "Two.", base=1)
    assert answer.headers["location"] == "/console/issues/news/edit?done=stored"
    assert revisions(office) == [text("One."), text("Two.")]
    with reading(office.parts.database) as session:
        issue = store.find(session, "news")
        assert store.revision_of(session, issue).author == "editor@example.org"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Just words.", "expected --- and the front matter here"),
        ("---\nslug: news\n---\nHello\n", "the subject is missing"),
        ("---\nsubject: x\nslug: news\n---\n\nHi {{ nmae }}\n", "no placeholder nmae"),
        ("---\nsubject: [\n---\nx\n", "the front matter is not YAML"),
        (text(slug="other"), "this issue is called news, and its slug stays"),
        (text("x" * 200_001), "an issue has at most 200,000 bytes"),
        (text("a\x01b"), "a character that is not allowed"),
    ],
)
def test_a_text_that_is_no_issue_is_given_back_with_the_reason(
    office: Office, words: str, said: str
) -> None:
    editor = office.signed_in(Role.EDITOR)
    keep(office, text())
    answer = editor.post("/console/issues/news/edit", text=words, base="1")
    assert answer.status_code == 400
    assert said in html.unescape(answer.text)
    assert typed(answer.text) == words
    assert revisions(office) == [text()]


def test_a_text_without_a_slug_is_refused_where_it_is_new(office: Office) -> None:
    editor = office.signed_in(Role.EDITOR)
    answer = editor.post("/console/issues/_edit", text="---\nsubject: x\n---\n\nHello\n")
    assert answer.status_code == 400
    assert "the issue needs a slug" in answer.text


def test_who_was_slower_gets_the_text_back_with_what_differs_and_can_go_on(office: Office) -> None:
    editor, other = office.signed_in(Role.EDITOR), office.signed_in(Role.EDITOR, "bob@example.org")
    keep(office, text("The first word of many."))
    edit(other, "The second word of many.", base=1)
    slower = edit(editor, "The third word of many.", base=1)
    assert slower.status_code == 409
    assert "bob@example.org saved revision 2" in slower.text
    assert "<del>second</del>" in slower.text
    assert "<ins>third</ins>" in slower.text
    assert typed(slower.text) == text("The third word of many.")
    assert revisions(office)[-1] == text("The second word of many.")
    # Knowing that, they store over it, unless a third person was faster again.
    base = hidden(slower.text, "base")
    assert base == "2"
    edit(other, "The fourth word.", base=2)
    assert edit(editor, "The third word of many.", base=base).status_code == 409
    assert edit(editor, "The third word of many.", base=3).status_code == 303
    assert len(revisions(office)) == 4


def test_a_slug_that_is_taken_is_said_so(office: Office) -> None:
    editor = office.signed_in(Role.EDITOR)
    keep(office, text("Theirs."))
    answer = editor.post("/console/issues/_edit", text=text("Mine."))
    assert answer.status_code == 409
    assert "there is an issue of this slug already" in answer.text
    assert typed(answer.text) == text("Mine.")
    assert revisions(office) == [text("Theirs.")]


@pytest.mark.parametrize("base", ["", "x", "-1", "0", "7", "9" * 20, "²"])
def test_a_base_that_never_was_stores_nothing(office: Office, base: str) -> None:
    editor = office.signed_in(Role.EDITOR)
    keep(office, text())
    assert edit(editor, "Other.", base=base).status_code in {409, 422}
    assert revisions(office) == [text()]


def test_a_session_that_ends_in_mid_edit_loses_nothing(office: Office) -> None:
    office.user("alice@example.org", Role.EDITOR)
    keep(office, text("One."))
    browser = office.browser()
    browser.sign_in("alice@example.org")
    page = browser.get("/console/issues/news/edit").text
    with transaction(office.parts.database) as session:
        sessions.end_all(session, office_user(office, "alice@example.org"))
    written = text("Two hours of writing, and <b>more</b>.")
    lost = browser.post("/console/issues/news/edit", text=written, base=hidden(page, "base"))
    assert lost.status_code == 403
    assert typed(lost.text) == written
    assert 'href="/console/sign-in"' in lost.text
    assert revisions(office) == [text("One.")]
    # In another tab they sign in; the page that was kept is then older than their session.
    old_token = hidden(lost.text, "csrf")
    browser.sign_in("alice@example.org")
    again = browser.client.post(
        "/console/issues/news/edit",
        data={"csrf": old_token, "text": written, "base": hidden(lost.text, "base")},
        headers={"accept": "text/html"},
    )
    assert again.status_code == 403
    assert typed(again.text) == written
    stored = browser.client.post(
        "/console/issues/news/edit",
        data={"csrf": hidden(again.text, "csrf"), "text": written, "base": "1"},
        headers={"accept": "text/html"},
    )
    assert stored.status_code == 303
    assert revisions(office)[-1] == written


def office_user(office: Office, email: str) -> int:

    with reading(office.parts.database) as session:
        return users.by_email(session, email).id


def test_another_site_gets_no_text_into_a_form_of_ours(office: Office) -> None:
    editor = office.signed_in(Role.EDITOR)
    keep(office, text())
    for csrf in (editor.csrf, "forged"):
        answer = editor.client.post(
            "/console/issues/news/edit",
            data={"csrf": csrf, "text": "planted", "base": "1"},
            headers={"accept": "text/html", "origin": "https://evil.example"},
        )
        assert answer.status_code == 403
        assert "planted" not in answer.text
    assert revisions(office) == [text()]


def test_a_script_that_asks_for_a_piece_of_a_page_is_told_that_the_session_ended(
    office: Office,
) -> None:
    stranger = office.browser()
    stranger.get("/console/sign-in")
    answer = stranger.post("/console/issues/_check", text=text(), headers={"hx-request": "true"})
    assert answer.status_code == 401
    assert "<form" not in answer.text


def test_the_checks_look_at_a_text_that_is_stored_nowhere(office: Office) -> None:
    editor = office.signed_in(Role.EDITOR)
    fine = editor.post("/console/issues/_check", text=text())
    assert "data-renders" in fine.text
    assert "of 102,400 bytes" in fine.text
    broken = editor.post("/console/issues/_check", text=text("Hi {{ nmae }}"))
    assert 'data-line="6"' in broken.text
    assert "data-renders" not in broken.text
    by_hand = editor.post("/console/issues/_edit", text=text("Hi {{ nmae }}"), do="check")
    assert 'data-line="6"' in by_hand.text
    assert typed(by_hand.text) == text("Hi {{ nmae }}")
    large = editor.post("/console/issues/_check", text=text("x " * 100_001))
    assert "at most 200,000 bytes" in large.text
    with reading(office.parts.database) as session:
        assert session.scalar(select(func.count()).select_from(table_of(Revision))) == 0


def test_from_the_request_over_changes_to_approval(office: Office) -> None:
    editor, approver = office.signed_in(Role.EDITOR), office.signed_in(Role.APPROVER)
    keep(office, text("One."))
    asked = editor.post("/console/issues/news/review", note="By Friday?")
    assert asked.headers["location"] == "/console/issues/news?done=asked"
    page = approver.get("/console/issues/news").text
    assert "By Friday?" in page
    assert hidden(page, "revision") == "1"
    assert "say what to change" in (
        approver.post("/console/issues/news/return", note=" ").text.lower()
    )
    approver.post("/console/issues/news/return", note="Shorter!")
    assert "Shorter!" in editor.get("/console/issues/news").text
    edit(editor, "1.", base=1)
    editor.post("/console/issues/news/review")
    assert approver.post("/console/issues/news/approve", revision="2").status_code == 303
    assert "Approved" in editor.get("/console/issues/news").text
    with reading(office.parts.database) as session:
        log = [(row.actor, row.action, row.subject) for row in audit.entries(session)][:6]
    assert log == [
        ("approver@example.org", "issue approved", "news"),
        ("editor@example.org", "review requested", "news"),
        ("editor@example.org", "issue saved", "news"),
        ("approver@example.org", "issue returned", "news"),
        ("editor@example.org", "review requested", "news"),
        ("ada@example.org", "issue saved", "news"),
    ]


def test_nobody_approves_words_that_they_have_not_seen(office: Office) -> None:
    editor, approver = office.signed_in(Role.EDITOR), office.signed_in(Role.APPROVER)
    keep(office, text("One."))
    editor.post("/console/issues/news/review")
    page = approver.get("/console/issues/news").text
    edit(editor, "Two.", base=1)
    editor.post("/console/issues/news/review")
    stale = approver.post(
        "/console/issues/news/approve", revision=hidden(page, "revision"), note="Well done."
    )
    assert stale.status_code == 409
    assert "is not the latest: editor@example.org saved revision 2" in stale.text
    assert typed(stale.text, "note") == "Well done."
    assert hidden(stale.text, "revision") == "2"
    for wrong in ("", "x", "0", "9" * 12):
        answer = approver.post("/console/issues/news/approve", revision=wrong)
        assert answer.status_code == 409
    assert "In review" in approver.get("/console/issues/news").text


def test_an_approver_keeps_an_issue_out_of_the_archive_and_lets_it_in(office: Office) -> None:
    keep(office, text())
    approver, page = office.signed_in(Role.APPROVER), "/console/issues/news"
    for shown, said in (("off", "Hidden."), ("on", "Anyone can read it after")):
        answer = approver.post(f"{page}/archive", shown=shown)
        assert said in approver.get(answer.headers["location"]).text
        with reading(office.parts.database) as session:
            assert store.find(session, "news").archive is (shown == "on")
    assert approver.post(f"{page}/archive", shown="?").status_code == 409
    assert approver.post("/console/issues/none/archive", shown="on").status_code == 404
    assert "Public archive" not in office.signed_in(Role.EDITOR).get(page).text


@pytest.mark.slow
def test_a_second_person_has_to_approve_where_that_is_asked_for(
    open_office: Callable[..., Office], environment: dict[str, str]
) -> None:
    environment["NEWSLETTER_REVIEW__SECOND_PERSON"] = "true"
    office = open_office(require_second_factor="false")
    writer, reader = office.signed_in(Role.APPROVER), office.signed_in(Role.OWNER)
    writer.post("/console/issues/_edit", text=text())
    writer.post("/console/issues/news/review")
    page = writer.get("/console/issues/news").text
    assert "Another user has to approve this revision." in page
    assert "Approve revision" not in page
    refused = writer.post("/console/issues/news/approve", revision="1")
    assert refused.status_code == 409
    assert "wrote this revision" in refused.text
    assert "Approve revision 1" in reader.get("/console/issues/news").text
    assert reader.post("/console/issues/news/approve", revision="1").status_code == 303


def test_two_revisions_are_compared(office: Office) -> None:
    viewer = office.signed_in(Role.VIEWER)
    for words in ("Delete the alert.", "Delete the alarm.", "Delete the alarm now."):
        keep(office, text(words))
    latest = viewer.get("/console/issues/news/changes").text
    assert "<h1>Revision 2 to 3</h1>" in latest
    assert "<ins> now</ins>" in latest
    whole = viewer.get("/console/issues/news/changes?from=1&to=2").text
    assert "<del>alert</del>" in whole
    assert "No differences." in viewer.get("/console/issues/news/changes?from=2&to=2").text
    for wrong in ("from=9", "to=0", "to=x", "from=-1"):
        assert viewer.get(f"/console/issues/news/changes?{wrong}").status_code == 404


def test_issues_are_listed_searched_and_paged(office: Office) -> None:
    viewer = office.signed_in(Role.VIEWER)
    assert "No issues yet." in viewer.get("/console/issues").text
    for number in range(55):
        keep(office, text(slug=f"news-{number}", title=f"Number {number}"), later=number)
    keep(office, text(slug="weekly-1", series="weekly", title="Of the week"), later=99)
    first = viewer.get("/console/issues").text
    assert first.index("Of the week") < first.index("Number 54")
    assert "Number 5<" not in first
    second = viewer.get("/console/issues?page=2").text
    assert "Number 5<" in second
    assert "Newer" in second
    assert "Older" not in second
    found = viewer.get("/console/issues?q=number+54&state=draft&series=letter").text
    assert found.count('data-name="Status"') == 1
    assert "No matching issues." in viewer.get("/console/issues?state=approved").text
    weekly = viewer.get("/console/issues?series=weekly").text
    assert "Of the week" in weekly
    assert "Number" not in weekly
    for odd in ("page=0", "page=x", "page=999999", "state=x", "series=%00", "q=%00", "q=%25"):
        assert viewer.get(f"/console/issues?{odd}").status_code == 200


def test_what_is_not_there_is_said_so(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    for slug in ("none", "%00", "..%2f..%2fetc", "a" * 300, "_", "%f0%9f%98%80"):
        for page in ("", "/edit", "/preview", "/mail", "/changes"):
            assert owner.get(f"/console/issues/{slug}{page}").status_code == 404
        for step in ("/edit", "/review", "/approve", "/return", "/preview", "/ask"):
            answer = owner.post(f"/console/issues/{slug}{step}", text=text(), note="x")
            assert answer.status_code == 404


def test_nothing_in_an_issue_or_its_review_becomes_markup(office: Office) -> None:
    editor, owner = office.signed_in(Role.EDITOR), office.signed_in(Role.OWNER)
    quoted = '"' + HOSTILE.replace('"', '\\"') + '"'
    hostile = (
        f"---\nsubject: {quoted}\ntitle: {quoted}\npreheader: {quoted}\nslug: news\n---\n\n"
        f"{HOSTILE}\n\n[x](javascript:alert(4))\n</textarea><script>alert(5)</script>\n"
    )
    assert editor.post("/console/issues/_edit", text=hostile).status_code == 303
    edited = hostile.replace("alert(5)", "alert(6)")
    assert editor.post("/console/issues/news/edit", text=edited, base="1").status_code == 303
    editor.post("/console/issues/news/review", note=HOSTILE)
    owner.post("/console/issues/news/return", note=HOSTILE)
    stale = editor.post("/console/issues/news/edit", text=hostile + "more", base="1")
    pages = [
        stale,
        editor.post("/console/issues/_check", text=hostile),
        editor.post("/console/issues/_new", pasted=HOSTILE),
        editor.post("/console/issues/news/edit", text=f"{HOSTILE}</textarea>", base="2"),
        *(
            owner.get(f"/console/issues{path}")
            for path in (
                "",
                f"?q={HOSTILE.replace('&', '%26')}",
                "/news",
                "/news/edit",
                "/news/changes",
                "/news/preview",
                "/news/preview?part=text",
                "/news/preview?part=source",
                f"/news/preview?person={HOSTILE.replace('&', '%26')}",
            )
        ),
    ]
    for answer in pages:
        assert answer.status_code < 500
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert "<title>&lt;script&gt;alert(1)" in pages[6].text
