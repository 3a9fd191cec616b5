"""Links, pictures and stray HTML, each at its line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter.checking.checker import Checker
from tests.conftest import NOW
from tests.newsletter.checking.conftest import PUBLICATION, RULES, TEMPLATES, Look


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a?b=c#d",
        "http://example.com:8080/",
        "https://bücher.example.org/ä",
        "https://8.8.8.8/",
        "mailto:editors@example.com?subject=Hi",
        "{{ preferences_url }}",
        "https://example.com/?who={{ email }}",
    ],
)
def test_a_link_that_can_be_followed_is_fine(look: Look, url: str) -> None:
    assert look("links", f"A [word]({url}).") == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("example.com", "stays text"),
        ("javascript:alert(1)", "stays text"),
        ("//example.com/a", "stays text"),
        ("mailto:nobody", "not an email address"),
        ("https://localhost/a", "cannot reach"),
        ("https://10.0.0.1/", "cannot reach"),
        ("https://[::1]/", "cannot reach"),
        ("https://printer.local/", "cannot reach"),
        ("https://exa_mple.com/", "invalid host"),
        ("https://example..com/", "not a valid web address"),
        ("https://example.com:99999/", "not a valid web address"),
        ("https://[::/", "invalid host"),
        ("https://bank.example.com@evil.example.org/", "user name"),
    ],
)
def test_a_link_that_cannot_is_found_at_its_line(look: Look, url: str, said: str) -> None:
    (found,) = look("links", f"One.\n\nTwo\nthree [word]({url}).")
    assert found.line == 8
    assert said in found.message


@pytest.mark.parametrize(
    "before",
    [
        "`two\nthree`",
        "[two](https://example.com 'of\nthree')",
        "[two](\nhttps://example.com)",
        "[two `of\nthree`][there]",
        "![two\nthree](https://example.com/a.png)",
        "![two](https://example.com/a.png){width=1\nheight=1}",
        "*two\\\nthree*",
        "[![two\nthree](https://example.com/a.png)\n`four\n`](https://example.com 'five\nsix')",
    ],
)
def test_a_line_is_right_behind_what_goes_over_the_end_of_one(look: Look, before: str) -> None:
    after = "[behind](there)\n[next](there)\n\n[there]: https://example.com '\n'\n\n[last](there)"
    found = look("links", f"One {before} {after}")
    line = 5 + before.count("\n")
    assert [one.line for one in found] == [line, line + 1, line + 6]


@pytest.mark.parametrize("text", ["[a](https://example.com/a b)", "[a][nowhere]"])
def test_half_a_link_is_found(look: Look, text: str) -> None:
    (found,) = look("links", f"One.\n\n{text}")
    assert found.line == 7
    assert "looks like a link" in found.message


def test_a_link_without_words_is_found_unless_a_picture_has_some(look: Look) -> None:
    (found,) = look("links", "[](https://example.com)")
    assert "no link text" in found.message
    assert look("links", "[![Chart](https://example.com/a.png)](https://example.com)") == []


def test_a_digests_sources_are_links_as_well(look: Look) -> None:
    text = (
        "---\nsubject: News\ntemplate: digest\n---\n## Dives\n\n### One\n\n"
        "*Acme* · [Source](https://localhost/)\n"
    )
    found = Checker(PUBLICATION, TEMPLATES, RULES).check_text(text, name="d.md", now=NOW)
    assert [one.line for one in found if one.check == "links"] == [9]


def test_html_is_found_where_it_would_be_shown(look: Look) -> None:
    (found,) = look("markup", "One\n<b>two</b>\n\n`<b>` and List<T> and a < b are meant.")
    assert found.line == 6
    assert "<b> is shown" in found.message


PIECES = (
    "[ ]( ) ! < > ` * { } a https:// mailto: &lt; ://[ @ :9 % [a]:< \u202e \ud7ff \\ {{name}}"
).split()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, "\n", " "]), max_size=40).map("".join))
def test_no_text_makes_a_check_fail_and_every_line_is_in_the_file(body: str) -> None:
    text = f"---\nsubject: News\n---\nx {body}\n"
    for found in Checker(PUBLICATION, TEMPLATES, RULES).check_text(text, name="h.md", now=NOW):
        assert found.line is None or 1 <= found.line <= text.count("\n") + 1
