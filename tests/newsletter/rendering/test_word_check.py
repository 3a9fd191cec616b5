"""Words in, words out: what an author wrote is in both parts, or the issue is refused."""

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from newsletter.errors import IssueError, TemplateError
from newsletter.issues.parsing.issue_file import parse_issue, read_issue
from newsletter.rendering.markdown import Markdown
from newsletter.rendering.plaintext import PlainText, joined
from newsletter.rendering.render import render
from newsletter.rendering.word_check import MissingWord, first_missing, words_of
from tests.newsletter.rendering.conftest import PUBLICATION, TEMPLATES

SAMPLES = Path(__file__).parents[3] / "issues"


def made_of(body: str) -> tuple[str, str]:
    markdown, piece = Markdown(body, in_url=str, name="news.md", line=1), PlainText()
    tokens = markdown.blocks(body)
    return markdown.html(tokens), joined(piece.blocks(tokens), piece.footnotes())


def found(body: str, html: str, text: str) -> MissingWord | None:
    return first_missing(words_of(body, line=1, marks="nlnone"), html, text)


def letter(body: str) -> tuple[str, str]:
    draft = parse_issue(f"---\nsubject: x\n---\n{body}", name="news.md")
    made = render(draft, PUBLICATION, templates=TEMPLATES)
    return made.html, made.text


@pytest.mark.parametrize(
    "body",
    [
        "* * * * * * * * * * SPONSOR\n\nand more",
        "- - - - - - - - - - - - SPONSOR",
        "".join(f"{'  ' * deep}- level{deep}\n" for deep in range(18)) + "\nSPONSOR",
        "".join(f"{'    ' * deep}{deep + 1}. level{deep}\n" for deep in range(12)) + "\nSPONSOR",
        "".join(f"{'> ' * deep}quote{deep}\n>\n" for deep in range(1, 15)) + "\nSPONSOR",
        "999999999. " * 15 + "SPONSOR",
        "![a `SPONSOR` b](https://example.com/a.png){width=5}",
        "![a\\\nSPONSOR](https://example.com/a.png){width=5}",
        "[words](https://example.com 'SPONSOR')",
        "[mailto:SPONSOR@example.com](mailto:SPONSOR@example.com)",
    ],
)
def test_nothing_behind_deep_nesting_or_within_a_picture_is_lost(body: str) -> None:
    for part in letter(body):
        if "'SPONSOR'" not in body or part.startswith("<"):  # the title of a link is HTML's alone
            assert "SPONSOR" in part
        assert set(re.findall(r"level\d+|quote\d+", body)) <= set(re.findall(r"[a-z]+\d+", part))


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("fine\n\n" + "* " * 30 + "SPONSOR", 6),
        ("fine\n\n" + "".join(f"{'  ' * deep}- level\n" for deep in range(30)), 26),
        ("> " * 60 + "SPONSOR", 4),
        ("fine\n\n``` python SPONSOR\ncode\n```", 6),
    ],
)
def test_what_cannot_be_shown_is_refused_at_its_line(body: str, line: int) -> None:
    with pytest.raises(IssueError) as caught:
        letter(body)
    assert caught.value.place == f"news.md:{line}"
    assert caught.value.hint


_PIECES = st.sampled_from(
    ["alpha", "beta", "δέλτα", "日本語", "ß", "İ", "e\u0301", "123", "4.", "x" * 90, "*", "**",
     "_", "__", "`", "``", "\n```\n", "\n~~~\n", "\n", "\n\n", "- ", "* ", "1. ", "12) ", "> ",
     "    ", "  ", "\t", "# ", "## ", "[", "]", "(", ")", "![", "](", "](https://e.example/a_b)",
     "](https://e.example 'tit le')", "](<https://e.example/x>)", "[ref]", "[other][ref]",
     '\n[ref]: https://r.example "rt"\n', "\n[q w]:\nhttps://q.example/z\n'ti\ntle'\n", "[Q  W]",
     "<b>", "</b>", "<br/>", "<https://auto.example/x>", "<mail@x.example>", "&amp;", "&auml;",
     "&#228;", "&nbsp;", "&bogus;", "&", "\\", "\\*", "\\\n", "  \n", "---", "===", "***", "|",
     "|---|", "\u202eabc\u202c", "\u200b", "\u00ad", "\u2028", "\xa0", "{width=5}", "{.cls}",
     "![alt text](https://i.example/p.png){width=512}", "~~", "foo_bar", "a/b", '"', "'", "!",
     "https://bare.example/p?q=1", "[m](mailto:a@b.example)", "<!", "?>", "[[x]]", "- - - - ",
     "- [x] ", "\n1. [ ] ", "\n| a | b |\n|:-:|--|\n| 1 | two |\n", "|--|--|\n", "~~old~~", "~",
     "[^n]", "\n\n[^n]: note\n\n", "\n\n[^m]: spare", "\nTerm\n: what\n", "\n: ", "\n~ ",
     "www.e.example/a",
     "xmpp:a@b.example", "http://", "mailto:x@y.example", "a@b.example.", "(https://e.example/(x))",
     "[call](tel:+4930123)", "https://e.example/%20x&amp;y"]
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, min_size=1, max_size=30).map("".join))
def test_random_markdown_keeps_all_its_words(body: str) -> None:
    # The words behind ``` are the one thing that is meant to be shown to nobody.
    body = re.sub(r"(```|~~~)[^\n]+", r"\1\n", body)
    # A footnote that nothing refers to is refused, and so is a second one of the same label.
    if body.strip() and body.count("[^n]:") < 2:
        try:
            made = made_of(body)
        except IssueError as error:
            assert "nothing refers to the footnote" in error.message
        else:
            assert found(body, *made) is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(_PIECES, max_size=12).map("".join),
    st.sampled_from(["{}", "*{}*", "[{}](https://e.example/x)", "- {}", "> {}", "# {}", "`{}`",
                     "![{}](https://i.example/p.png)", "    {}", "a\n{}", "**b {}**", "<b>{}</b>",
                     "1. {}", "[see {}][ref]\n\n[ref]: https://r.example"]),
    st.sampled_from(["html", "text"]),
)  # fmt: skip
def test_a_word_that_any_parser_swallows_is_missed(above: str, form: str, part: str) -> None:
    above = re.sub(r"(```|~~~)[^\n]*|`|<|&\S*|\[[^\]]*$", "", above)
    body = f"{above}\n\n{form.format('Sponsor')}\n\nThe end."
    assume("[^" not in body)
    html, text = made_of(body)
    if part == "html":
        html = html.replace("Sponsor", "")
    else:
        text = text.replace("Sponsor", "")
    missing = found(body, html, text)
    assert missing is not None
    assert missing.word.text == "sponsor"
    assert "Sponsor" in body.split("\n")[missing.word.line - 1]


def test_of_a_word_that_is_there_too_rarely_one_is_missing() -> None:
    body = "one two\n\none three\n\none four"
    html = "<p>one two</p><p>one three</p><p>four</p>"
    assert (missing := found(body, html, body)) is not None
    assert (missing.word.text, missing.others) == ("one", 0)
    assert found(body, html.replace("four", "one four"), body) is None


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.md")), ids=lambda path: path.stem)
def test_the_sample_issues_lose_nothing(path: Path) -> None:
    assert render(read_issue(path), PUBLICATION, templates=TEMPLATES).text


def test_a_template_that_leaves_a_part_out_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "email"
    shutil.copytree(TEMPLATES, own)
    entry = own / "partials" / "entry.mjml"
    entry.write_text(entry.read_text().replace("{{ entry.organization }}", ""))
    draft = read_issue(SAMPLES / "engineering-at-scale-2026-03-27.md")
    with pytest.raises(TemplateError, match="does not show all words of the issue") as caught:
        render(draft, PUBLICATION, templates=own)
    assert caught.value.place == str(own / "digest.mjml")
