"""Tables, footnotes, task lists, definitions, strikethrough and bare addresses, in both parts."""

import subprocess
import sys

import pytest

from newsletter.errors import IssueError
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Rendered
from tests.newsletter.rendering.conftest import PUBLICATION, TEMPLATES


def letter(body: str, *, template: str = "letter") -> Rendered:
    draft = parse_issue(f"---\nsubject: x\ntemplate: {template}\n---\n{body}", name="news.md")
    return render(draft, PUBLICATION, templates=TEMPLATES)


def in_text(body: str) -> str:
    """The body's lines in the text part, between heading and footer."""
    return letter(body).text.partition("\n\n")[2].rpartition("\n" + "-" * 72)[0].strip("\n")


def test_a_table_has_columns_in_both_parts_and_labels_for_phones() -> None:
    body = "| Plan | Price |\n|---|--:|\n| Pro *new* | 9 & more |\n| | `0` |"
    html = letter(body).html
    assert "text-align:right" in html
    assert 'class="label"' in html
    assert ">Plan: </span>Pro <em>new</em></td>" in html
    assert ">Price: </span>9 &amp; more</td>" in html
    assert in_text(body).splitlines() == [
        "Plan       Price",
        "---------  --------",
        "Pro _new_  9 & more",
        "           `0`",
    ]


def test_a_wide_table_becomes_lines_in_the_text_part() -> None:
    long = "a cell with many words that goes on and on"
    body = f"| Name | What it is | |\n|---|---|---|\n| One | {long} | {long} |\n| Two | b | |"
    assert in_text(body).splitlines() == [
        "Name: One",
        f"What it is: {long}",
        long,
        "",
        "Name: Two",
        "What it is: b",
    ]


def test_a_row_with_too_many_cells_is_refused_at_its_line() -> None:
    with pytest.raises(IssueError, match="sponsor") as caught:
        letter("| a | b |\n|---|---|\n| 1 | 2 | SPONSOR |")
    assert caught.value.place == "news.md:7"


def test_headings_that_would_make_a_huge_email_are_refused() -> None:
    body = f"Intro\n\n| {'word ' * 20_000} | b |\n|---|---|\n" + "| x | y |\n" * 5000
    with pytest.raises(IssueError, match="headings of this table are too long") as caught:
        letter(body)
    assert caught.value.place == "news.md:7"


def test_footnotes_are_numbered_and_stand_at_the_end_of_their_part() -> None:
    body = "One[^b] two[^a] one[^b].\n\n[^a]: The [second](https://a.example).\n[^b]: First.\n"
    html = letter(body).html
    assert html.count("<sup") == 3
    assert html.index(">First.</p>") < html.index("The <a")
    assert 'href="#' not in html
    assert in_text(body).splitlines() == [
        "One¹ two² one¹.",
        "",
        "¹ First.",
        "² The second [1].",
        "",
        "[1] https://a.example",
    ]


def test_in_a_digest_footnotes_belong_to_their_entry() -> None:
    entry = "### {0}\n\n*Org* · Source\n\nText[^1].\n\n[^1]: Note of {0}.\n\n"
    text = letter("## Part\n\n" + entry.format("A") + entry.format("B"), template="digest").text
    assert text.index("¹ Note of A.") < text.index("B\n-") < text.index("¹ Note of B.")
    lost = "## Part\n\n### A\n\n*Org* · Source\n\nText[^1].\n\n## End\n\nBye.\n\n[^1]: Note."
    with pytest.raises(IssueError, match="footnote") as caught:
        letter(lost, template="digest")
    assert caught.value.place == f"news.md:{5 + lost[: lost.index('[^1]: ')].count(chr(10))}"


def test_a_footnote_that_nothing_refers_to_is_refused_at_its_line() -> None:
    with pytest.raises(IssueError, match=r"nothing refers to the footnote \[\^n\]") as caught:
        letter("Text.\n\n[^n]: Note.")
    assert caught.value.place == "news.md:7"
    assert "[^n]" in str(caught.value.hint)


def test_tasks_have_boxes_and_no_form_elements() -> None:
    body = "- [x] done\n- [ ] open\n- plain"
    html = letter(body).html
    assert "<input" not in html
    assert "☑ done</li>" in html
    assert in_text(body).splitlines() == ["- ☑ done", "- ☐ open", "- plain"]


def test_definitions_and_strikethrough() -> None:
    body = "SMTP\n: Simple *Mail*\n\n~~old~~ new"
    html = letter(body).html
    assert "SMTP</dt>" in html
    assert "<s>old</s> new" in html
    assert in_text(body).splitlines() == ["SMTP", "    Simple _Mail_", "", "~~old~~ new"]


@pytest.mark.parametrize(
    ("written", "href", "shown"),
    [
        ("https://a.example/x_y?a=1&b=%20.", "https://a.example/x_y?a=1&amp;b=%20", None),
        ("www.a.example", "http://www.a.example", "www.a.example [1]"),
        ("ed@a.example", "mailto:ed@a.example", None),
        ("[call](tel:+4930123456)", "tel:+4930123456", "call [1]"),
        ("<https://a.example>", "https://a.example", "https://a.example"),
    ],
)
def test_addresses_are_links(written: str, href: str, shown: str | None) -> None:
    assert f'href="{href}"' in letter(f"See {written}").html
    assert in_text(f"See {written}").splitlines()[0] == f"See {shown or written}"


@pytest.mark.parametrize(
    "written", ["xmpp:a@b.example", "http://", "https:///x", "ftp://a.example"]
)
def test_other_addresses_stay_text(written: str) -> None:
    assert written in letter(f"See {written} there").html
    assert (
        "href" not in letter(f"See {written} there").html.partition("See")[2].partition("there")[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a: ", "mailto:", "ahttps://b ", "(https:///", ")"])
def test_beginnings_of_addresses_without_end_take_no_time_without_end(unit: str) -> None:
    code = (
        "from newsletter.rendering.markdown import new_parser\n"
        f"new_parser().parse('https://a.example/' + {unit!r} * {190_000 // len(unit)})"
    )
    # Each took minutes; it takes a second or two.
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("words", ["x" * 500, "word " * 100, "a: " * 200])
def test_a_bare_address_after_much_text_is_a_link_and_no_text_is_lost(words: str) -> None:
    for address in ("ed@a.example", "mailto:ed@a.example", "https://a.example/x"):
        html = letter(f"{words.strip()} {address} end").html
        assert f"{words.strip()} <a href=" in html
        assert html.count(f">{address}</a> end") == 1
