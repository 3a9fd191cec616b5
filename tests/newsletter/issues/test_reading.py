"""Issue files: what is read, and each way of being wrong with its file and line."""

import re
from datetime import date
from pathlib import Path

import pytest

from newsletter.errors import IssueError
from newsletter.issues.parsing import merge_fields
from newsletter.issues.parsing.digest import parse_digest
from newsletter.issues.parsing.issue_file import Draft, parse_issue, read_issue
from newsletter.issues.parsing.text import read_text

SAMPLES = Path(__file__).parents[3] / "issues"


def issue(front: str, body: str = "Good day.\n") -> Draft:
    return parse_issue(f"---\n{front}\n---\n{body}", name="news.md")


def refusal(front: str, body: str = "Good day.\n") -> IssueError:
    with pytest.raises(IssueError) as caught:
        issue(front, body)
    return caught.value


def test_every_key_arrives_as_written() -> None:
    draft = issue(
        'subject: Hello {{ name | default("reader") }}\n'
        "preheader: What is new\n"
        "title: Number one\n"
        "date: 2026-03-27\n"
        "from: The Editors <editors@example.com>\n"
        "reply_to: answers@example.com\n"
        "topics: [engineering, leadership, engineering]\n"
        "template: digest\n"
        "slug: number-one\n"
        "language: no",
        "\n## News\n\nText.\n",
    )
    assert draft.subject == 'Hello {{ name | default("reader") }}'
    assert draft.preheader == "What is new"
    assert (draft.title, draft.slug, draft.template) == ("Number one", "number-one", "digest")
    assert draft.date == date(2026, 3, 27)
    assert (draft.from_name, draft.from_email) == ("The Editors", "editors@example.com")
    assert draft.reply_to == "answers@example.com"
    assert draft.topics == ("engineering", "leadership")
    assert draft.language == "no"  # YAML 1.1 would read false
    assert draft.body == "\n## News\n\nText.\n"
    assert draft.body_line == 13


def test_a_subject_is_enough_and_the_house_decides_the_rest() -> None:
    draft = parse_issue("---\nsubject: Our news\n---\nText", name="folder/Our News № 12.md")
    assert (draft.template, draft.title, draft.slug) == ("letter", "Our news", "our-news-no-12")
    assert (draft.preheader, draft.topics, draft.date) == ("", (), None)
    assert (draft.from_email, draft.from_name, draft.reply_to, draft.language) == (None,) * 4


def test_a_bare_address_keeps_the_name_of_the_house() -> None:
    draft = issue("subject: x\nfrom: editors@example.com")
    assert (draft.from_name, draft.from_email) == (None, "editors@example.com")


def test_a_title_made_from_a_personal_subject_speaks_to_nobody() -> None:
    assert issue('subject: Hi {{ name | default("you") }}, news').title == "Hi you, news"
    assert issue("subject: Hi {{ name }}, news").title == "Hi, news"
    assert issue('subject: "{{ name }}: news"').title == "news"


def test_line_breaks_and_byte_order_marks_of_any_machine_are_read() -> None:
    draft = parse_issue("\ufeff---\r\nsubject: x\r\n---\r\nOne.\r\nTwo.\r\n", name="a.md")
    assert draft.body == "One.\nTwo.\n"
    assert draft.source == "---\nsubject: x\n---\nOne.\nTwo.\n"


@pytest.mark.parametrize(
    ("front", "line", "words"),
    [
        ("preheader: x", 1, "subject is missing"),
        ("subject:", 2, "subject is missing"),
        ("subject: ''", 2, "subject is missing"),
        ("subject: x\nsubjct: y", 3, "“subjct” is not a key"),
        ("subject: x\n[1]: y", 3, "not a key"),
        ("subject: x\nsubject: y", 3, "second time"),
        ("subject: [a]", 2, "subject is text"),
        ("subject: x\n\ntopics: engineering", 4, "topics is a list"),
        ("subject: x\ntopics:\n  - fine\n  - Not Fine", 5, "not a topic's slug"),
        ("subject: x\ntopics: [[a]]", 3, "not a topic's slug"),
        ("subject: x\ntemplate: poster", 3, "no template poster"),
        ("subject: x\nslug: Über Uns", 3, "slug has the wrong form"),
        ("subject: x\nlanguage: english!", 3, "language has the wrong form"),
        ("subject: x\ndate: 27.3.2026", 3, "date has the wrong form"),
        ("subject: x\ndate: '2026-02-30'", 3, "no such day"),
        ("subject: x\nfrom: Nobody", 3, "from has the wrong form"),
        ("subject: x\nreply_to: A <a@b.c>", 3, "reply_to has the wrong form"),
        ("subject: x\ntitle: Hi {{ name }}", 3, "title cannot have placeholders"),
        ("subject: x\npreheader: a: b", 3, "not YAML"),
        ("subject: {{ name }}, hello", 2, "not YAML"),
        ("subject: x\npreheader: 'open", 3, "not YAML"),
        ("subject: x\nfrom: !!python/object:os.system y", 3, "from is text"),
        ("- subject", 2, "expected lines like"),
        ("subject: " + "x" * 301, 2, "301 characters"),
        ("subject: " + "[" * 5000, 2, ""),
    ],
)
def test_front_matter_is_refused_at_its_line(front: str, line: int, words: str) -> None:
    error = refusal(front)
    assert error.place == f"news.md:{line}"
    assert words in error.message
    assert error.hint


@pytest.mark.parametrize("key", ["subject", "from", "preheader", "title", "reply_to"])
@pytest.mark.parametrize("value", [r'"a\nBcc: b@example.com"', r'"a\r\nB: c"', r'"a\u2028b"'])
def test_a_value_cannot_add_a_header(key: str, value: str) -> None:
    front = f"{key}: {value}" if key == "subject" else f"subject: x\n{key}: {value}"
    error = refusal(front)
    assert error.message == f"{key} has a line break"
    assert error.place == f"news.md:{front.count(chr(10)) + 2}"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "expected ---"),
        ("\n\nHello\n", 3, "expected ---"),
        ("---\nsubject: x\n\nHello\n", 1, "is not closed"),
        ("---\nsubject: x\n---\n\n \n", 4, "no text"),
        ("---\nsubject: x\n---\nbin\x00ary", 4, "is not allowed"),
        ("Sources\n\nPaper — 2026-03-27#\n\nDeep Dives#\n", 1, "plain-text digest"),
        ("[A title] · Airbnb · Source It was so.\n", 1, "plain-text digest"),
    ],
)
def test_a_file_that_is_no_issue_is_refused_at_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(IssueError, match=words) as caught:
        parse_issue(text, name="news.md")
    assert caught.value.place == f"news.md:{line}"


def test_a_plain_text_digest_is_told_from_an_issue_and_the_way_out_named() -> None:
    seed = Path(__file__).with_name("engineering-at-scale-2026-03-27.txt")
    with pytest.raises(IssueError) as caught:
        read_issue(seed)
    assert caught.value.hint is not None
    assert f"newsletter issue import {seed} -o issue.md" in caught.value.hint
    with pytest.raises(IssueError) as caught:
        parse_issue(seed.read_text(), name="in the editor")
    assert caught.value.hint is not None
    assert "New issue" in caught.value.hint
    assert "newsletter" not in caught.value.hint


@pytest.mark.parametrize(
    ("body", "line", "words"),
    [
        ("Hello {{ nmae }}", 4, "did you mean name"),
        ("One\n\nHello {{ first_name }}", 6, "no placeholder first_name"),
        ("{{ attributes.Company }}", 4, "no placeholder attributes.Company"),
        ("{{ attributes }}", 4, "no placeholder attributes"),
        ("a\nb {{ name", 5, "malformed"),
        ("{{ }}", 4, "malformed"),
        ("{{ name | upper }}", 4, "malformed"),
        ("{{ name\n}}", 4, "malformed"),
        ("{{ name | default(reader) }}", 4, "malformed"),
        ('{{ unsubscribe_url | default("x") }}', 4, "cannot have a default"),
        ("`code {{ x }}`", 4, "no placeholder x"),
        ("[a](https://x.example/?q={{ who }})", 4, "no placeholder who"),
    ],
)
def test_a_placeholder_is_refused_at_its_line(body: str, line: int, words: str) -> None:
    error = refusal("subject: x", body)
    assert error.place == f"news.md:{line}"
    assert words in error.message


def test_an_unknown_placeholder_in_the_subject_names_its_line_and_what_is_known() -> None:
    error = refusal("preheader: y\nsubject: Hi {{ nick }}")
    assert error.place == "news.md:3"
    assert error.hint is not None
    assert "name, email, attributes.KEY" in error.hint
    assert "unsubscribe_url" not in error.hint
    assert "body only" in refusal("subject: Leave at {{ unsubscribe_url }}").message


def test_known_placeholders_and_literal_braces_are_read() -> None:
    body = (
        "{{name}} {{ email }} {{ attributes.job_title | default('colleague') }} "
        "{{ name | default(“reader”) }} [leave]({{ unsubscribe_url }}) \\{{ literal }} `\\{{ x }}`"
    )
    assert issue("subject: x", body).body == body


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(IssueError, match="no such file") as caught:
        read_issue(tmp_path / "none.md")
    assert caught.value.place == str(tmp_path / "none.md")
    with pytest.raises(IssueError, match="cannot be read"):
        read_text(tmp_path)
    latin = tmp_path / "latin.md"
    latin.write_bytes("---\nsubject: Grüße\n---\n".encode("latin-1"))
    with pytest.raises(IssueError, match="not UTF-8") as caught:
        read_issue(latin)
    assert caught.value.place == f"{latin}:2"
    latin.write_bytes(b"a" * 200_001)
    with pytest.raises(IssueError, match="at most 200,000 bytes"):
        read_issue(latin)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.md")), ids=lambda path: path.stem)
def test_the_sample_issues_are_read(path: Path) -> None:
    draft = read_issue(path)
    assert draft.slug == path.stem
    assert draft.topics == ("engineering",)


def examples() -> list[str]:
    """The issue files printed in the documentation."""
    page = (SAMPLES.parent / "docs" / "reference" / "issue-format.md").read_text(encoding="utf-8")
    return re.findall(r"```markdown\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("text", examples())
def test_the_examples_of_the_documentation_are_read(text: str) -> None:
    draft = parse_issue(text, name="example.md")
    if draft.template == "digest":
        assert [s.title for s in parse_digest(draft.body, name="example.md").sections] == [
            "Signal of the Day",
            "Deep Dives",
            "Patterns Across Companies",
        ]


def test_every_key_and_placeholder_is_documented() -> None:
    page = (SAMPLES.parent / "docs" / "reference" / "issue-format.md").read_text(encoding="utf-8")
    allowed = refusal("subject: x\nunknown: y").hint or ""
    for key in allowed.removeprefix("Allowed: ").removesuffix(".").split(", "):
        assert f"| `{key}` |" in page
    for word in (*merge_fields.PERSONAL, *merge_fields.LINKS):
        assert f"`{{{{ {word} }}}}`" in page
