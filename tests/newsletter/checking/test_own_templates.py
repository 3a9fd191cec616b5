"""Our own templates and starters give our own checks nothing to say, and are valid HTML."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from lxml import html

from newsletter.checking.checker import Checker
from newsletter.checking.context import CheckContext
from newsletter.checking.design.client_support import clients
from newsletter.checking.design.contrast import contrast
from newsletter.checking.styles import StyledPage
from newsletter.issues.parsing.issue_file import TEMPLATES as ISSUE_TEMPLATES
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.starters import STARTERS, starter
from newsletter.rendering.render import render
from newsletter.rendering.transactional import render_transactional
from newsletter.settings.load import resource
from tests.conftest import NOW
from tests.newsletter.checking.conftest import PUBLICATION, RULES, TEMPLATES, Look

LOGO = "https://news.example.com/logo.png"
PUBLICATIONS = {
    "no logo": PUBLICATION,
    "logo": replace(PUBLICATION, logo_url=LOGO),
    "right to left": replace(PUBLICATION, logo_url=LOGO, language="ar"),
}
SAMPLES = sorted(Path(resource("issues")).glob("*.md"))
#: Everything that Markdown makes.
ALL = """\
# One

Words, **strong**, *emphasis*, `code`, [a link](https://example.com/a).

## Two

> Quoted.

- a list
  - within a list

1. a
2. b

```
code
```

---

![A picture](https://example.com/b.png){width=512}

![A picture](https://example.com/c.png){width=512 height=256}

[leave]({{ unsubscribe_url }})
"""


def texts() -> dict[str, str]:
    found = {f"starter {name}": starter(name, date(2026, 3, 27)) for name in STARTERS}
    found |= {path.name: path.read_text(encoding="utf-8") for path in SAMPLES}
    front = "---\nsubject: All of it\npreheader: What stands behind the subject.\n"
    for template in ISSUE_TEMPLATES:
        body = ALL if template == "letter" else "## Section\n\n" + ALL.partition("## Two")[2]
        found[f"all of it, {template}"] = f"{front}template: {template}\n---\n\n{body}"
    return found


TEXTS = texts()
#: A picture without a size, of which a check would speak.
UNSIZED = TEXTS["all of it, letter"] + "\n![A picture](https://example.com/a.png)\n"


def notices(publication: object) -> Iterator[str]:
    for paragraphs, button in itertools.product((1, 3), (None, ("Yes", LOGO))):
        yield render_transactional(
            publication,  # type: ignore[arg-type]
            templates=TEMPLATES,
            title="Confirm",
            paragraphs=["Words."] * paragraphs,
            button=button,
            footer="You get this because you asked for it.",
        ).html


def test_every_template_is_looked_at() -> None:
    assert {path.stem for path in TEMPLATES.glob("*.mjml")} == {*ISSUE_TEMPLATES, "notice"}
    assert set(STARTERS) == set(ISSUE_TEMPLATES)


@pytest.mark.parametrize("publication", PUBLICATIONS)
@pytest.mark.parametrize("name", TEXTS)
def test_an_issue_without_a_mistake_has_no_finding(name: str, publication: str) -> None:
    checker = Checker(PUBLICATIONS[publication], TEMPLATES, RULES)
    assert checker.check_text(TEXTS[name], name="issue.md", now=NOW) == []


@pytest.mark.parametrize("publication", PUBLICATIONS)
def test_a_single_email_has_no_finding_either(publication: str) -> None:
    draft = parse_issue(TEXTS["starter letter"], name="issue.md")
    rendered = render(draft, PUBLICATIONS[publication], templates=TEMPLATES)
    for page in notices(PUBLICATIONS[publication]):
        case = CheckContext(
            draft, replace(rendered, html=page), PUBLICATIONS[publication], RULES, NOW
        )
        assert list(clients(case)) == []
        assert list(contrast(case)) == []


def pages() -> Iterator[tuple[str, str]]:
    for publication, of in PUBLICATIONS.items():
        for name, text in TEXTS.items():
            yield (
                f"{name}, {publication}",
                render(parse_issue(text, name="x.md"), of, templates=TEMPLATES).html,
            )
        for number, page in enumerate(notices(of)):
            yield f"notice {number}, {publication}", page


#: Elements and what HTML takes for their sizes: whole pixels, in tables also a share.
_PIXELS, _LENGTH = re.compile(r"\d+"), re.compile(r"\d+%?")
_SIZES = {"img": _PIXELS, "table": _LENGTH, "td": _LENGTH, "th": _LENGTH}
#: Elements that had these attributes in HTML 4.01, which is what Outlook goes by.
_ALIGN = {"table": {"left", "center", "right"}, "td": {"left", "center", "right", "justify"}}
_VALIGN = {"td": {"top", "middle", "bottom", "baseline"}, "tr": {"top", "middle", "bottom"}}
_BGCOLOR = {"table", "tr", "td", "th", "body"}


def test_sizes_and_other_attributes_of_looks_are_valid_html() -> None:
    wrong = []
    for name, page in pages():
        for one in html.document_fromstring(page).iter():
            if not isinstance(one.tag, str):
                continue
            said = one.attrib
            for size in ("width", "height"):
                allowed = _SIZES.get(str(one.tag))
                if size in said and not (allowed and allowed.fullmatch(said[size])):
                    wrong.append((name, one.tag, size, said[size]))
            if "align" in said and said["align"] not in _ALIGN.get(str(one.tag), ()):
                wrong.append((name, one.tag, "align", said["align"]))
            if "valign" in said and said["valign"] not in _VALIGN.get(str(one.tag), ()):
                wrong.append((name, one.tag, "valign", said["valign"]))
            if "bgcolor" in said and one.tag not in _BGCOLOR:
                wrong.append((name, one.tag, "bgcolor", said["bgcolor"]))
    assert wrong == []


def test_pictures_keep_the_sizes_that_were_written() -> None:
    page = render(parse_issue(UNSIZED, name="x.md"), PUBLICATIONS["logo"], templates=TEMPLATES).html
    sizes = [
        (image.get("src"), image.get("width"), image.get("height"))
        for image in StyledPage.of(page).elements()
        if image.tag == "img"
    ]
    assert sizes == [
        # By which Outlook goes, that knows no max-width.
        (LOGO, "160", None),
        ("https://example.com/b.png", "512", None),
        ("https://example.com/c.png", "512", "256"),
        ("https://example.com/a.png", None, None),
    ]


def test_space_between_borders_is_found_where_it_means_something(
    look: Look, tmp_path: Path
) -> None:
    for file in TEMPLATES.rglob("*"):
        if file.is_file():
            to = tmp_path / file.relative_to(TEMPLATES)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(file.read_text())
    sheet = tmp_path / "body.css"
    sheet.write_text(sheet.read_text() + "\n.copy p { border-spacing: 4px; }\n")
    (found,) = look("clients", "Words.", templates=tmp_path)
    assert "border-spacing" in found.message
