"""From a mail to a public page: nobody's values and nobody's links are left in it."""

import pytest

from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.rendering.placeholders import Placeholders
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Publication
from newsletter.rendering.webpage import to_page
from newsletter.settings.load import resource

LINKS = {
    "unsubscribe_url": "https://news.example/subscribe",
    "preferences_url": "https://news.example/subscribe",
    "web_view_url": "https://news.example/archive/first",
}
PUBLICATION = Publication(
    name="Paper & Ink",
    base_url="https://news.example",
    postal_address="Street 1, Town",
    from_email="news@example.org",
    from_name="Paper",
    reply_to=None,
    language="en",
    logo_url=None,
)
ISSUE = """---
subject: Hello {{ name | default("reader") }}
preheader: For {{ attributes.company | default("your <team>") }}
slug: first
language: ar
---

Good day, {{ name | default("dear reader") }} of {{ attributes.company }}.

[Leave]({{ unsubscribe_url }}), [choose]({{ preferences_url }}), [read]({{ web_view_url }}),
or paste {{ unsubscribe_url }}. [Yours](https://elsewhere.example/?me={{ email }})

Caf\u00e9 &amp; <b>no HTML</b> &lt;script&gt; \\{{ braces }}
"""


@pytest.fixture
def page() -> str:
    rendered = render(
        parse_issue(ISSUE, name="first.md"), PUBLICATION, templates=resource("templates/email")
    )
    found = to_page(rendered.html, rendered.placeholders, links=LINKS)
    assert rendered.placeholders.prefix in rendered.html
    assert rendered.placeholders.prefix not in found.head + found.body
    assert (found.language, found.direction) == ("ar", "rtl")
    assert "background-color" in found.style
    assert "@media (prefers-color-scheme: dark)" in found.head
    assert "<title" not in found.head
    return found.body


def test_placeholders_read_as_for_somebody_unknown(page: str) -> None:
    assert "Good day, dear reader of ." in page
    assert 'https://elsewhere.example/?me="' in page


def test_personal_links_lead_to_public_pages(page: str) -> None:
    for path in ("/unsubscribe", "/preferences", "/view"):
        assert path not in page
    assert '<a href="https://news.example/archive/first"' in page
    assert page.count("https://news.example/subscribe") == 4


def test_what_is_for_the_inbox_only_is_left_out(page: str) -> None:
    assert "You get Paper" not in page
    assert "Unsubscribe</a>" not in page
    assert "<!--" not in page
    assert "your &lt;team&gt;" not in page
    assert "Street 1, Town" in page


def test_text_stays_text(page: str) -> None:
    assert "Caf\u00e9 &amp; " in page
    assert "<b>" not in page
    assert "<script" not in page
    assert "{{ braces }}" in page


def test_elements_are_left_out_with_all_that_is_in_them() -> None:
    nobody = Placeholders("-nlx", "", ())
    html = (
        '<html><head><title>A &amp; B</title><style>a > b { c: "</d>" }</style></head><body>'
        '<div class="x in-mail y">1<div>2</div><br>3</div><p>4<br/>5</p>'
        '<img class="in-mail" src="x"><p style="color:red;DISPLAY : none">6</p>7&nbsp;&#8203;'
        "</body></html>"
    )
    found = to_page(html, nobody, links=LINKS)
    assert found.body == "<p>4<br/>5</p>7&nbsp;&#8203;"
    assert found.head == '<style>a > b { c: "</d>" }</style>'
    assert (found.language, found.direction, found.style) == ("", "ltr", "")
