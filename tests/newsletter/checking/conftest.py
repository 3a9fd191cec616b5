"""A checker of a publication by the built-in rules, and a letter to be checked."""

from collections.abc import Callable
from typing import Any

import pytest

from newsletter.checking.checker import Checker
from newsletter.checking.finding import Finding
from newsletter.checking.rules import CheckRules, load_rules
from newsletter.rendering.rendered import Publication
from newsletter.settings.load import resource
from tests.conftest import NOW

PUBLICATION = Publication(
    name="Paper",
    base_url="https://news.example.com",
    postal_address="Street 1, 12345 Town & Sons",
    from_email="news@example.com",
    from_name="Paper",
    reply_to=None,
    language="en",
    logo_url=None,
)
PREHEADER = "What it says behind the subject, in a few words."
TEMPLATES = resource("templates/email")
RULES = load_rules(resource("config") / "checks.toml")

Look = Callable[..., list[Finding]]


def changed(check: str, **values: Any) -> CheckRules:
    """The built-in rules with other values for one check."""
    rule = getattr(RULES, check).model_copy(update=values)
    return RULES.model_copy(update={check: rule})


@pytest.fixture
def look() -> Look:
    """Findings of one check about a letter of this body, which begins on line 5 of its file."""

    def look(
        check: str,
        body: str,
        *,
        subject: str = "News",
        preheader: str = PREHEADER,
        rules: CheckRules = RULES,
        publication: Publication = PUBLICATION,
        **asked: Any,
    ) -> list[Finding]:
        text = f"---\nsubject: {subject}\npreheader: {preheader}\n---\n{body}\n"
        checker = Checker(publication, asked.pop("templates", TEMPLATES), rules)
        found = checker.check_text(text, name="news.md", now=NOW, **asked)
        assert not [one for one in found if one.check == "file"], found
        return [one for one in found if one.check == check]

    return look
