"""The digest's format: what its parts become, and where it is refused."""

import pytest

from newsletter.errors import IssueError
from newsletter.issues.parsing.digest import DigestEntry, DigestSection, parse_digest

EXAMPLE = """\
Welcome.

## Signal of the Day

One *thing*.

Another.

## Deep Dives

A word before.

### Why C#

*MIT / DeepLearning.AI* · [Source](https://example.com/a?b=1&c=2)

First.

#### Aside

```
### not a heading
```

### Second ##

_Air\\_bnb_ | Source

## Patterns

Prose.
"""


def test_sections_hold_prose_and_entries() -> None:
    digest = parse_digest(EXAMPLE, name="d.md", first_line=10)
    assert digest.opening == "Welcome."
    signal, dives, patterns = digest.sections
    assert signal == DigestSection("Signal of the Day", "One *thing*.\n\nAnother.", ())
    assert patterns == DigestSection("Patterns", "Prose.", ())
    assert dives.prose_markdown == "A word before."
    assert dives.entries == (
        DigestEntry(
            title="Why C#",
            organization="MIT / DeepLearning.AI",
            source_label="Source",
            source_url="https://example.com/a?b=1&c=2",
            body_markdown="First.\n\n#### Aside\n\n```\n### not a heading\n```",
            line=22,
        ),
        DigestEntry("Second", "Air\\_bnb", "Source", None, "", 34),
    )


def test_an_organization_may_stand_alone() -> None:
    (section,) = parse_digest("## S\n### T\n*Airbnb*\nText.", name="d.md").sections
    assert section.entries == (DigestEntry("T", "Airbnb", "", None, "Text.", 2),)


@pytest.mark.parametrize(
    ("body", "line", "words"),
    [
        ("Only prose.", 5, "without a section"),
        ("", 5, "without a section"),
        ("# Title\n", 5, "no # heading"),
        ("## A\n\n## B\n\ntext", 5, "section is empty"),
        ("## A\n\ntext\n\n## B\n", 9, "section is empty"),
        ("text\n\n### T\n*A*\n", 7, "outside of a section"),
        ("## A\n\n### T\n", 7, "names no organization"),
        ("## A\n\n### T\n\nAirbnb · Source\n", 9, "expected the entry's organization"),
        ("## A\n\n### T\n\n*A* · [Source](\n", 9, "expected the entry's organization"),
        ("## A\n### T\n*A* · [S](javascript:alert)\n", 7, "web address"),
        ("## A\n### T\n*A* · [S](/relative)\n", 7, "web address"),
        ("##\ntext", 5, "no text"),
        ("## A\n### ###\ntext", 6, "no text"),
    ],
)
def test_another_layout_is_refused_at_its_line(body: str, line: int, words: str) -> None:
    with pytest.raises(IssueError, match=words) as caught:
        parse_digest(body, name="d.md", first_line=5)
    assert caught.value.place == f"d.md:{line}"
    assert caught.value.hint
