"""A publication, its templates, and people whose values are as bad as they come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Publication, Rendered

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "templates" / "email"
SEED = ROOT / "tests" / "newsletter" / "issues" / "engineering-at-scale-2026-03-27.txt"
PUBLICATION = Publication(
    name="Engineering @ Scale",
    base_url="https://news.example.com",
    postal_address="Example Street 1, 12345 Example Town",
    from_email="editors@example.com",
    from_name="The Editors",
    reply_to=None,
    language="en",
    logo_url=None,
)
ALICE: dict[str, Any] = {
    "name": "Alice",
    "email": "alice@example.org",
    "attributes": {"company": "R&D"},
}
NOBODY: dict[str, Any] = {"name": "", "email": "x@example.org", "attributes": {}}

Make = Callable[..., Rendered]


@pytest.fixture
def letter() -> Make:
    """Renders a letter of this body; more front matter by keyword."""

    def make(
        body: str, *, publication: Publication = PUBLICATION, subject: str = "News", **front: str
    ) -> Rendered:
        lines = "".join(f"{key}: {value}\n" for key, value in front.items())
        text = f"---\nsubject: {subject}\n{lines}---\n{body}\n"
        return render(parse_issue(text, name="news.md"), publication, templates=TEMPLATES)

    return make
