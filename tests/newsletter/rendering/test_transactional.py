"""Single mails: complete, escaped, and as beautiful as an issue."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import html as lxml_html

from newsletter.errors import TemplateError
from newsletter.rendering.transactional import TransactionalEmail, render_transactional
from tests.newsletter.rendering.conftest import PUBLICATION, TEMPLATES

URL = "https://news.example.com/confirm/abc_-123?a=1&b=2"


def make(**changes: object) -> TransactionalEmail:
    given: dict[str, object] = {
        "templates": TEMPLATES,
        "title": "Confirm your subscription",
        "paragraphs": ["One click.", "Or none."],
        "button": ("Confirm", URL),
        "footer": "You asked for it.",
        **changes,
    }
    publication = given.pop("publication", PUBLICATION)
    return render_transactional(publication, **given)  # type: ignore[arg-type]


def shown(words: TransactionalEmail) -> str:
    """What a reader of the HTML part sees, the preheader left out."""
    page = lxml_html.document_fromstring(words.html)
    for hidden in page.xpath('//style|//title|//*[contains(@style, "display:none")]'):
        hidden.drop_tree()
    return " ".join(page.text_content().split())


def test_both_parts_say_the_same() -> None:
    words = make()
    assert words.subject == "Confirm your subscription"
    for text in ("Confirm your subscription", "One click.", "Or none.", "You asked for it."):
        assert text in shown(words)
        assert text in words.text
    assert PUBLICATION.postal_address in words.text
    assert PUBLICATION.postal_address in shown(words)
    assert f"Confirm:\n{URL}\n" in words.text
    [link] = lxml_html.document_fromstring(words.html).xpath("//a[.//text()]")
    assert link.get("href") == URL
    assert link.text_content().strip() == "Confirm"


def test_whatever_is_written_arrives_as_text() -> None:
    hostile = '<script>alert(1)</script> & "quotes" {{ name }} {% x %} </mj-text> nlwordsqp0qnl'
    words = make(title=hostile, paragraphs=[hostile, "x"], button=(hostile, URL), footer=hostile)
    assert shown(words).count(hostile) == 4
    assert "<script" not in words.html
    assert words.subject == hostile
    assert hostile in words.text.replace("\n", " ")


def test_a_url_cannot_leave_its_attribute() -> None:
    words = make(button=("Go", 'https://x.example/"><script>'))
    assert "<script" not in words.html
    assert 'href="https://x.example/&#34;&gt;&lt;script&gt;"' in words.html


def test_no_word_makes_a_second_header_line() -> None:
    words = make(title="Hello\r\nBcc: victim@example.org\u2028x\x00")
    assert words.subject == "Hello Bcc: victim@example.org x"


def test_a_notice_without_a_button_has_no_link() -> None:
    words = make(button=None)
    assert lxml_html.document_fromstring(words.html).xpath("//a") == []
    assert "://" not in words.text


def test_it_speaks_its_language_in_its_direction() -> None:
    assert '<html lang="de" dir="ltr"' in make(language="de").html
    assert '<html lang="ar" dir="rtl"' in make(publication=replace(PUBLICATION, language="ar")).html


def test_the_house_shows_its_logo_or_else_its_name() -> None:
    logo = replace(PUBLICATION, logo_url="https://news.example.com/logo.png")
    assert 'src="https://news.example.com/logo.png"' in make(publication=logo).html
    assert "kicker" in make().html


def test_it_looks_like_an_issue_also_at_night() -> None:
    words = make()
    assert "prefers-color-scheme: dark" in words.html
    assert re.search(r'class="[^"]*\bcard\b', words.html)
    assert len(words.html.encode()) < 30_000


def test_an_edited_template_counts_at_once_and_a_wrong_one_says_where(tmp_path: Path) -> None:
    folder = tmp_path / "email"
    shutil.copytree(TEMPLATES, folder)
    before = make(templates=folder)
    file = folder / "notice.mjml"
    file.write_text(file.read_text().replace("{{ footer }}", "{{ footer }} Yours truly."))
    assert "Yours truly." in make(templates=folder).html
    assert "Yours truly." not in before.html
    file.write_text(file.read_text() + "{{ nonsense }}")
    with pytest.raises(TemplateError) as caught:
        make(templates=folder)
    assert str(file) in (caught.value.place or "")
