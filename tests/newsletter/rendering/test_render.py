"""From a draft to both parts of a mail: whole, inert where it is hostile, and for everybody."""

import dataclasses
import html
import re
from dataclasses import astuple
from pathlib import Path

import pytest
from lxml import etree

from newsletter.errors import IssueError, TemplateError
from newsletter.issues.digest_import import import_digest
from newsletter.issues.parsing.issue_file import parse_issue, read_issue
from newsletter.issues.parsing.text import read_text
from newsletter.rendering.preview import preview
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Rendered

from .conftest import ALICE, NOBODY, PUBLICATION, ROOT, SEED, TEMPLATES, Make

HOSTILE = "<script>alert(1)</script> \"'&amp; {{ email }} ${7*7} {% raw %}"


def seed() -> Rendered:
    text = import_digest(read_text(SEED), name="seed.txt")
    return render(parse_issue(text, name="seed.md"), PUBLICATION, templates=TEMPLATES)


def shown(page: str) -> str:
    """What a reader sees of a page, without the hidden preheader."""
    tree = etree.HTML(page)
    for unseen in tree.xpath("//head | //div[contains(@style,'display:none')] | //comment()"):
        unseen.getparent().remove(unseen)
    return " ".join("".join(f"{text} " for text in tree.itertext()).split())


def seed_words() -> list[str]:
    """The seed without its furniture: “Sources”, marks of headings, brackets, dots between."""
    text = read_text(SEED).removeprefix("Sources\n")
    text = re.sub(r"#$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\[(.+?)\] · ", r"\1 ", text, flags=re.MULTILINE)
    # The date moves to a line of its own, where no dash is needed.
    return text.replace("Engineering @ Scale — ", "Engineering @ Scale ").split()


def test_the_seed_is_rendered_word_for_word_in_both_parts() -> None:
    made = seed()
    begin, end = "Engineering @ Scale 2026-03-27", "You get Engineering @ Scale because"
    page = shown(made.html)
    words = page[page.index(begin) : page.index(end)].split()
    expected = " ".join(seed_words())
    assert " ".join(words).replace(" · Source", " Source") == expected.replace(
        " · Source", " Source"
    )
    lines = [line for line in made.text.split("\n") if not re.fullmatch(r"[-=]+", line)]
    text = " ".join(" ".join(lines).split())
    assert text[: text.index(end)].strip() == expected


def test_the_seed_stays_far_below_the_size_that_gmail_clips() -> None:
    assert seed().html_size < 45_000
    assert seed().text_size < 20_000


def test_the_same_input_gives_the_same_bytes() -> None:
    assert seed() == seed()


def test_a_page_has_what_clients_and_the_law_want() -> None:
    made = seed()
    page = made.html
    assert page.startswith("<!DOCTYPE html>")
    assert page.lower().count("<!doctype") == 1
    assert '<html lang="en" dir="ltr"' in page
    assert "<title>Engineering @ Scale — 2026-03-27</title>" in page
    assert '<meta name="color-scheme" content="light dark">' in page
    assert "@media (prefers-color-scheme: dark)" in page
    assert "[data-ogsc] .copy p" in page
    assert "!important" in page
    assert re.search(
        r"display:none[^>]*>Airbnb’s pivot[^<]*often looks…\u034f\u200c\u00a0\u034f", page
    )
    for path in ("unsubscribe", "preferences", "view"):
        assert f'href="https://news.example.com/{path}/{made.placeholders.token}"' in page
        assert f"https://news.example.com/{path}/{made.placeholders.token}\n" in made.text
    assert PUBLICATION.postal_address in page
    assert PUBLICATION.postal_address in made.text
    assert "googleapis" not in page
    assert re.findall(r"<table(?![^>]*role=\"presentation\")[^>]*>", page) == []


def test_the_text_part_is_made_for_reading(letter: Make) -> None:
    made = letter(
        "# Big\n\nA [link](https://a.example/x) and *more* **words** `code`\\\nbroken ![a cat](https://a.example/c.png)\n\n"
        "- one\n- two " + "word " * 20 + "\n  - deep\n\n3. three\n4. four\n\n> quoted\n> text\n\n"
        "```py\nx = 1\n\n  y\n```\n\n---\n\n<https://b.example/> <mailto:a@b.example> "
        "[again](https://a.example/x)"
    )
    body = made.text.split("====\n\n", 1)[1].split("\n\n-----")[0]
    assert body == (
        "Big\n---\n\n"
        "A link [1] and _more_ *words* `code`\nbroken [a cat]\n\n"
        "- one\n"
        "- two word word word word word word word word word word word word word\n"
        "  word word word word word word word\n"
        "  - deep\n\n"
        "3. three\n4. four\n\n"
        "> quoted text\n\n"
        "    x = 1\n\n      y\n\n"
        "* * *\n\n"
        "https://b.example/ a@b.example again [1]\n\n"
        "[1] https://a.example/x"
    )


def test_lines_of_text_are_wrapped_and_no_address_is_broken(letter: Make) -> None:
    address = "https://a.example/" + "long-" * 30
    made = letter(f"{'word ' * 40}[here]({address}) <{address}> {{{{ name }}}}")
    assert all(len(line) <= 74 for line in made.text.split("\n") if "://" not in line)
    assert made.text.count(address) == 2
    assert "|" not in seed().text
    assert not re.search(r"[ \t]$|\n{4}", made.text, re.MULTILINE)


def test_placeholders_arrive_in_every_place_in_the_right_form(letter: Make) -> None:
    made = letter(
        'Hi *{{ name | default("reader") }}* at {{ attributes.company }}, '
        "{{ name | default('x') }}s.\n\n"
        "[find](https://x.example/?who={{ email }}&c={{ attributes.company }}#{{ name }}) "
        "[leave]({{ unsubscribe_url }}) <{{ preferences_url }}> "
        "![{{ name }}](https://x.example/{{ name }}.png)\n\n"
        "[mail](mailto:a@b.example?subject={{ name }}) `{{ name }}`",
        subject="For {{ name }}",
        preheader="Dear {{ name }}",
    )
    person = {"name": 'A "b" <c>', "email": "a+b@x.org", "attributes": {"company": "R&D ü"}}
    subject, page, text = astuple(preview(made, person, token="TOK"))
    assert subject == 'For A "b" <c>'
    assert ">Dear A &quot;b&quot; &lt;c&gt;\u034f" in page
    assert "Hi <em>A &quot;b&quot; &lt;c&gt;</em> at R&amp;D ü, A &quot;b&quot; &lt;c&gt;s." in page
    url = "https://x.example/?who=a%2Bb%40x.org&amp;c=R%26D%20%C3%BC#A%20%22b%22%20%3Cc%3E"
    assert f'href="{url}"' in page
    assert 'href="https://news.example.com/unsubscribe/TOK"' in page
    assert ">https://news.example.com/preferences/TOK</a>" in page
    assert 'alt="A &quot;b&quot; &lt;c&gt;"' in page
    assert 'src="https://x.example/A%20%22b%22%20%3Cc%3E.png"' in page
    assert 'href="mailto:a@b.example?subject=A%20%22b%22%20%3Cc%3E"' in page
    assert 'Hi _A "b" <c>_ at R&D ü, A "b" <c>s.' in text
    assert html.unescape(url) in text
    assert "https://news.example.com/unsubscribe/TOK" in text
    for part in (subject, page, text):
        assert made.placeholders.prefix not in part
        assert "{{" not in part
    assert "\n\nHi _reader_ at , xs.\n\n" in preview(made, NOBODY).text


def test_hostile_values_arrive_as_text(letter: Make) -> None:
    made = letter("Hi {{ name }}", subject="{{ name }}".join("''"))
    subject, page, text = astuple(
        preview(made, {**ALICE, "name": HOSTILE + made.placeholders.token})
    )
    wanted = HOSTILE + made.placeholders.token
    assert wanted in shown(page)
    assert "<script" not in page
    assert subject == wanted.replace(
        made.placeholders.prefix, "\u2011" + made.placeholders.prefix[1:]
    )
    assert subject in text


def test_literal_braces_reach_the_reader(letter: Make) -> None:
    made = letter("Write \\{{ name }} or `\\{{ x }}`\n\n```\n\\{{ y }}\n```", subject="On \\{{")
    assert made.subject == made.title == "On {{"
    assert "Write {{ name }} or {{ x }}" in shown(made.html)
    assert "    {{ y }}" in made.text
    assert made.placeholders.values == ()


@pytest.mark.parametrize(
    "markdown",
    [
        "<script>alert(1)</script>",
        '<img src=x onerror="alert(1)">',
        "[a](javascript:alert(1))",
        "[a](JaVaScRiPt:alert(1))",
        "[a](&#106;avascript:alert(1))",
        "[a](data:text/html;base64,PHNjcmlwdD4=)",
        "[a](vbscript:x) [b](file:///etc/passwd)",
        "![a](data:image/svg+xml;base64,PHN2Zz4=)",
        "<javascript:alert(1)>",
        '[a](https://x.example "t\\" onmouseover=\\"alert(1)")',
        "</mj-text></mj-column><mj-raw><script>alert(1)</script></mj-raw>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "[a]: javascript:alert(1)\n\n[a]",
        "<!-- --><style>*{display:none}</style>",
    ],
)
def test_hostile_markdown_is_inert(letter: Make, markdown: str) -> None:
    tree = etree.HTML(letter(markdown).html)
    cell = tree.xpath("//td[contains(@class,'letter')]")[0]
    assert cell.xpath(".//script | .//style | .//@onerror | .//@onmouseover") == []
    for address in cell.xpath(".//@href | .//@src"):
        assert re.match(r"https?://|mailto:", address)


def test_nesting_without_end_ends(letter: Make) -> None:
    assert "deep" in letter(">" * 20 + " deep").text
    assert "deep" in letter("- " * 20 + "deep").text
    for body in (">" * 5000 + " x", "- " * 500 + "x"):
        with pytest.raises(IssueError, match="too deeply") as caught:
            letter(f"fine\n\n{body}")
        assert caught.value.place == "news.md:6"
    assert "x" in letter("[" * 5000 + "x" + "](https://x.example)" * 100).text
    with pytest.raises(IssueError, match="nested too deeply") as caught:
        letter("fine\n\n" + "*" * 2000 + "x" + "*" * 2000)
    assert caught.value.place == "news.md:6"


def test_link_definitions_hold_for_all_parts_of_a_digest() -> None:
    text = (
        "---\nsubject: x\ntemplate: digest\n---\n## A\n\nSee [this][one].\n\n## B\n\n### T *x*\n\n"
        "*O & P* · [Source](https://s.example/?q={{ email }})\n\nMore [one].\n\n[one]: https://one.example/\n"
    )
    made = render(parse_issue(text, name="a.md"), PUBLICATION, templates=TEMPLATES)
    _, page, text = astuple(preview(made, ALICE))
    assert page.count('href="https://one.example/"') == 2
    assert 'href="https://s.example/?q=alice%40example.org"' in page
    assert "T <em>x</em></h3>" in page
    assert "T _x_\n-----\nO & P · Source [1]\n\nMore one [2].\n\n[1] https://s.example/?q=" in text


def test_a_digest_that_leaves_its_format_is_refused_with_the_line_of_the_file() -> None:
    text = "---\nsubject: x\ntemplate: digest\n---\n\n## A\n\n### T\n\nno organization\n"
    with pytest.raises(IssueError) as caught:
        render(parse_issue(text, name="a.md"), PUBLICATION, templates=TEMPLATES)
    assert caught.value.place == "a.md:10"


def test_values_of_house_and_front_matter_are_text(letter: Make) -> None:
    publication = dataclasses.replace(
        PUBLICATION,
        name="<b>A & B</b>",
        postal_address='"Street" <1>',
        logo_url="https://x.example/l.png?a=1&b=2",
    )
    made = letter(
        "x",
        publication=publication,
        subject="'Less < more & \"so\" </title>'",
        preheader="'<i> & {{ name }}'",
    )
    assert made.title == 'Less < more & "so" </title>'
    page = made.html
    assert "<b>" not in page
    assert "<i>" not in page
    tree = etree.HTML(page)
    assert tree.xpath("//title/text()") == [made.title]
    assert tree.xpath("//h1/text()") == [made.title]
    assert '<b>A & B</b>, "Street" <1>' in shown(page)
    assert tree.xpath("//img/@alt") == ["<b>A & B</b>"]
    assert tree.xpath("//img/@src") == ["https://x.example/l.png?a=1&b=2"]
    assert made.preheader == "<i> &"


def test_the_issues_own_sender_and_language_win_over_the_houses(letter: Make) -> None:
    publication = dataclasses.replace(PUBLICATION, reply_to="publication@example.com")
    made = letter("x", publication=publication)
    assert (made.from_email, made.from_name) == ("editors@example.com", "The Editors")
    assert (made.reply_to, made.language) == ("publication@example.com", "en")
    made = letter(
        "x",
        publication=publication,
        **{"from": "Ann <a@b.example>"},
        reply_to="r@b.example",
        language="ar",
    )
    assert (made.from_email, made.from_name) == ("a@b.example", "Ann")
    assert (made.reply_to, made.language) == ("r@b.example", "ar")
    assert '<html lang="ar" dir="rtl"' in made.html


def test_what_stands_in_no_inbox_speaks_to_nobody(letter: Make) -> None:
    made = letter(
        "x", subject="Hi {{ name | default('you') }}", preheader="For {{ name | default('you') }}"
    )
    assert (made.title, made.preheader) == ("Hi you", "For you")


@pytest.mark.parametrize("path", sorted((ROOT / "issues").glob("*.md")), ids=lambda path: path.stem)
def test_the_sample_issues_render(path: Path) -> None:
    _, page, text = astuple(
        preview(render(read_issue(path), PUBLICATION, templates=TEMPLATES), ALICE)
    )
    assert "{{" not in page + text


def test_a_missing_folder_of_templates_is_named(tmp_path: Path) -> None:
    draft = parse_issue("---\nsubject: x\n---\ny", name="a.md")
    with pytest.raises(TemplateError, match=r"no template letter\.mjml"):
        render(draft, PUBLICATION, templates=tmp_path)
