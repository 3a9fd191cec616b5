"""What new issues begin with."""

from datetime import date

import pytest

from newsletter.issues.parsing.digest import parse_digest
from newsletter.issues.parsing.issue_file import TEMPLATES, parse_issue
from newsletter.issues.starters import STARTERS, starter


@pytest.mark.parametrize("template", STARTERS)
def test_what_an_issue_begins_with_is_an_issue(template: str) -> None:
    draft = parse_issue(starter(template, date(2026, 11, 25)), name="new.md")
    assert draft.slug == f"{template}-2026-11-25"
    assert draft.template == template
    if template == "digest":
        assert len(parse_digest(draft.body, name="new.md").sections) == 2


def test_every_template_has_one() -> None:
    assert set(STARTERS) == set(TEMPLATES)
    assert starter("unknown", date(2026, 1, 1)) == starter("letter", date(2026, 1, 1))
