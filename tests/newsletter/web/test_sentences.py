"""Messages as sentences: what has a spelling of its own keeps it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import newsletter.web
from newsletter.accounts.models import Role
from newsletter.db.engine import transaction
from newsletter.issues import store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.web.sentences import capitalized, sentence
from tests.conftest import NOW
from tests.newsletter.web.conftest import Office

PACKAGE = Path(newsletter.__file__ or newsletter.web.__file__ or "").parent
WEB = Path(newsletter.web.__file__ or "").parent


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("the text is empty", "The text is empty."),
        ("über uns", "Über uns."),
        ("it’s over!", "It’s over!"),
        ("a, b and c", "A, b and c."),
        ("already so.", "Already so."),
        ("Send 5 is paused", "Send 5 is paused."),
        ("https://x.example/a: nobody answers", "https://x.example/a: nobody answers."),
        ("http://x.example", "http://x.example"),
        ("nothing answers at https://x.example/a", "Nothing answers at https://x.example/a"),
        ("mailto:a@x.example leads nowhere", "mailto:a@x.example leads nowhere."),
        ("news@example.org is not verified", "news@example.org is not verified."),
        ("www.example.org is gone", "www.example.org is gone."),
        ("tracking.clicks is off", "tracking.clicks is off."),
        ("webhook_max_age is too long", "webhook_max_age is too long."),
        ("issue.md:3: wrong", "issue.md:3: wrong."),
        ("x-sg-id: 5", "X-sg-id: 5."),
        ("{{ nam }} is unknown", "{{ nam }} is unknown."),
        ("“plan” is no key", "“plan” is no key."),
        ("3 links are dead", "3 links are dead."),
        ("", ""),
    ],
)
def test_a_message_becomes_a_sentence(text: str, made: str) -> None:
    assert sentence(text) == made


@given(st.text(), st.sampled_from(["https://", "http://", "mailto:a@", "ftp://", "//"]))
def test_an_address_is_never_changed(rest: str, scheme: str) -> None:
    address = scheme + "x.example/" + "".join(rest.split())
    assert capitalized(address) == address
    assert sentence(f"{address} is dead").startswith(address)
    assert sentence(f"see {address}").endswith(address)


def test_no_page_and_no_module_makes_sentences_by_itself() -> None:
    """A capital that is put in by hand makes "Https://…" of an address."""
    by_hand = re.compile(r"\[:1\]\s*\|\s*upper|\[:1\]\.upper\(\)|\[0\]\.upper\(\)|::first-letter")
    found = [
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*")
        if path.suffix in {".py", ".html", ".js", ".css"}
        and "vendor" not in path.parts
        and path != WEB / "sentences.py"
        and by_hand.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_only_words_of_ours_are_capitalized_as_a_whole() -> None:
    """Jinja's own filter, which also makes the rest small, is for states, roles and figures."""
    ours = {"state", "one.log.state", "name", "word", "role", "one.role", "visitor.role"}
    ours |= {"rule.action"}
    for path in (WEB / "pages").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"([\w.]+)\s*\|\s*capitalize\b", text)) <= ours, path
        assert not re.search(r"\|\s*title\b|text-transform:\s*capitalize", text), path


def test_findings_about_an_address_show_it_as_it_is(office: Office) -> None:
    body = "[a](https://xn--.example/a) and ![](http://x.example/b.png)\n"
    text = f"---\nsubject: S\nslug: first\n---\n\n{body}"
    with transaction(office.parts.database) as session:
        store.save(session, parse_issue(text, name="first.md"), by=COMMAND_LINE, now=NOW)
    page = office.signed_in(Role.EDITOR).get("/console/issues/first").text
    assert "Https:" not in page
    assert "Http:" not in page
