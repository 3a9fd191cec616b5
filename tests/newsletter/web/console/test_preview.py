"""The preview of an issue: a mail that nobody trusts, as its readers get it."""

import html
import re
from collections.abc import Callable, Iterator

import httpx2 as httpx
import pytest

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.db.engine import transaction
from newsletter.issues import store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from subscribers.consent import suppression
from subscribers.models import SuppressionReason
from tests.conftest import NOW, add_person
from tests.newsletter.web.conftest import Office

LETTER = (
    '---\nsubject: Hello {{ name | default("reader") }}\nslug: news\n---\n\n'
    'Dear {{ name | default("reader") }} of {{ attributes.company }},\n\n'
    "![A chart](https://example.com/chart.png)\n\n"
    "[Leave]({{ unsubscribe_url }}) [bad](javascript:alert(1)) <script>alert(2)</script>\n"
)
HOSTILE = '<img src=x onerror="alert(1)">'
MAIL = "/console/issues/news/mail"
PREVIEW = "/console/issues/news/preview"


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as running:
        yield running


def keep(office: Office, source: str = LETTER) -> Office:
    with transaction(office.parts.database) as session:
        draft = parse_issue(source, name="x.md")
        store.save(session, draft, by=Actor(None, "ada@example.org"), now=NOW)
    return office


def test_the_mail_is_a_document_that_runs_nothing_and_belongs_to_nobody(office: Office) -> None:
    viewer = keep(office).signed_in(Role.VIEWER)
    answer = viewer.get(MAIL)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    for rule in (
        "default-src 'none'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
        "sandbox allow-popups allow-popups-to-escape-sandbox",
    ):
        assert rule in policy
    assert "script" not in policy
    assert "allow-same-origin" not in policy
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "<script" not in answer.text
    assert "javascript:" not in re.sub(r"\[bad\]\(javascript:alert\(1\)\)", "", answer.text)
    assert "/unsubscribe/preview" in answer.text
    page = viewer.get(PREVIEW).text
    (frame,) = re.findall(r"<iframe[^>]*>", page)
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in frame
    assert "unsafe" not in viewer.get(PREVIEW).headers["content-security-policy"]


def test_it_is_shown_as_any_subscriber_gets_it(office: Office) -> None:
    with transaction(office.parts.database) as session:
        add_person(session, "ada@example.org", name="Ada", attributes={"company": HOSTILE})
    viewer = keep(office).signed_in(Role.VIEWER)
    assert "Dear Robin Example" in viewer.get(MAIL).text
    assert "Dear reader" in viewer.get(f"{MAIL}?person=stranger").text
    mail = viewer.get(f"{MAIL}?person=ADA@Example.org").text
    assert "Dear Ada of" in mail
    assert html.escape(HOSTILE) in mail
    assert HOSTILE not in mail
    page = viewer.get(f"{PREVIEW}?person=ada%40example.org").text
    assert "Hello Ada" in page
    assert "person=ada%40example.org" in page
    text = viewer.get(f"{PREVIEW}?person=ada%40example.org&part=text").text
    assert f"Dear Ada of {html.escape(HOSTILE)}" in text.replace("&#34;", "&quot;")
    assert HOSTILE not in text
    for nobody, said in ("bob@example.org", "No subscriber has"), ("no address", "address"):
        answer = viewer.get(f"{PREVIEW}?person={nobody}")
        assert said in answer.text
        assert "<iframe" not in answer.text
        assert viewer.get(f"{MAIL}?person={nobody}").status_code == 400


def test_light_dark_and_pictures_are_the_readers_and_not_the_browsers(office: Office) -> None:
    viewer = keep(office).signed_in(Role.VIEWER)
    light, dark = (viewer.get(f"{MAIL}?scheme={scheme}").text for scheme in ("light", "dark"))
    assert "prefers-color-scheme" not in light + dark
    assert "@media not all" in light
    assert "@media all" in dark
    with_, without = (viewer.get(f"{MAIL}?images={word}") for word in ("on", "off"))
    assert 'src="https://example.com/chart.png"' in with_.text
    assert "chart.png" not in without.text
    assert 'alt="A chart"' in without.text
    assert "img-src 'none'" in without.headers["content-security-policy"]
    for odd in ("scheme=x", "width=x", "part=x", "images=x", "revision="):
        assert viewer.get(f"{PREVIEW}?{odd}").status_code == 200


def test_each_revision_can_be_looked_at(office: Office) -> None:
    keep(office)
    viewer = keep(office, LETTER.replace("Dear", "Dearest")).signed_in(Role.VIEWER)
    assert "Dearest" in viewer.get(MAIL).text
    assert "Dearest" not in viewer.get(f"{MAIL}?revision=1").text
    for wrong in ("3", "x", "0", "9" * 12):
        assert viewer.get(f"{PREVIEW}?revision={wrong}").status_code == 404


def test_all_of_a_page_is_of_the_revision_that_it_shows(office: Office) -> None:
    page = html.unescape(keep(office).signed_in(Role.EDITOR).get(f"{PREVIEW}?person=stranger").text)
    assert 'name="revision" value="1"' in page
    for path in (MAIL, PREVIEW, "/console/issues/news/ask"):
        assert f'"{path}?revision=1&person=stranger&' in page


def test_what_is_outside_is_asked_when_an_editor_says_so(office: Office) -> None:
    # At the service's own host, which is on this machine: asked for, and never connected to.
    letter = LETTER.replace("https://example.com", office.parts.settings.site.base_url)
    editor = keep(office, letter).signed_in(Role.EDITOR)
    said = "it leads into a private network, so it is not requested"
    before = html.unescape(editor.get(PREVIEW).text)
    assert "Text only" in before
    assert "has no default" in before
    assert said not in before
    answer = editor.post("/console/issues/news/ask?person=stranger&part=text")
    after = html.unescape(answer.text)
    assert answer.status_code == 200
    assert said in after
    assert "Dear reader of" in after
    assert said not in html.unescape(editor.get(PREVIEW).text)


def test_a_text_that_is_written_is_shown_and_not_stored(office: Office) -> None:
    editor = office.signed_in(Role.EDITOR)
    mail = editor.post("/console/issues/_mail", text=LETTER, scheme="dark")
    assert "Dear Robin Example" in mail.text
    assert "@media all" in mail.text
    assert "sandbox" in mail.headers["content-security-policy"]
    broken = editor.post("/console/issues/_mail", text=LETTER.replace("name", "<b>nmae</b>"))
    assert "sandbox" in broken.headers["content-security-policy"]
    assert "Line 6: " in broken.text
    assert "<b>nmae" not in broken.text
    assert editor.get("/console/issues/news").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        ">" * 20_000 + " x",
        "[" * 20_000,
        "*a " * 20_000,
        "".join("  " * n + "- a\n" for n in range(300)),
        "&#x0;&#xD800; <!--[if mso]><script>alert(1)</script><![endif]-->",
        "</body></html><script>alert(1)</script>",
        "[x](data:text/html,<script>alert(1)</script>) ![y](javascript:alert(1))",
        "<https://example.com/\"onmouseover='alert(1)'>",
        "x" * 150_000,
    ],
)
def test_hostile_markdown_is_shown_or_refused_in_words(office: Office, body: str) -> None:
    editor = office.signed_in(Role.EDITOR)
    answer = editor.post("/console/issues/_mail", text=f"---\nsubject: x\nslug: y\n---\n\n{body}\n")
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert not re.search(r'(?:href|src)="(?:javascript|data)', answer.text)
    assert not re.search(r"<[^>]*\sonmouseover=", answer.text)


@pytest.mark.slow
def test_a_test_goes_to_the_named_addresses_with_a_mark_and_the_persons_values(
    open_office: Callable[..., Office], environment: dict[str, str], sandbox: RunningSandbox
) -> None:
    environment["NEWSLETTER_SENDGRID__HOST"] = sandbox.url
    office = keep(open_office(require_second_factor="false"))
    with transaction(office.parts.database) as session:
        add_person(session, "ada@example.org", name="Ada")
        left = office.parts.hash_of("left@example.org")
        assert left
        suppression.add_addresses(
            session, [left], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence=""
        )
    editor = office.signed_in(Role.EDITOR)
    path = f"{PREVIEW}?person=ada%40example.org"
    answer = editor.post(path, to="one@example.com, two@example.com;one@example.com")
    assert answer.status_code == 200
    assert "Test email sent to one@example.com, two@example.com." in answer.text
    mailbox = httpx.get(sandbox.url).text
    assert mailbox.count("[Test] Hello Ada") == 2
    for refused, said in (
        ("left@example.org", "this address is suppressed"),
        ("", "a test email needs 1 to 10 addresses"),
        (" ".join(f"a{n}@example.com" for n in range(11)), "a test email needs 1 to 10 addresses"),
        ("one@example.com\r\nBcc: x", "address"),
        ("<script>@example.com", "address"),
    ):
        answer = editor.post(path, to=refused)
        assert answer.status_code == 400
        assert said.casefold() in html.unescape(answer.text).casefold()
        assert "<script>" not in answer.text
    log = office.signed_in(Role.OWNER).get("/console/log").text
    assert "test email sent" in log
    assert "one@example.com, two@example.com" in log
    assert office.signed_in(Role.VIEWER).post(path, to="one@example.com").status_code == 403


def test_a_provider_that_does_not_answer_is_told_in_words(office: Office) -> None:
    editor = keep(office).signed_in(Role.EDITOR)
    answer = editor.post(PREVIEW, to="one@example.com")
    assert answer.status_code == 400
    assert "Check the API key and the sender in SendGrid" in answer.text
    assert 'value="one@example.com"' in answer.text
