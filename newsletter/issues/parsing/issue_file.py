"""Parses an issue file, Markdown with YAML front matter, into a Draft.

A Draft is valid: every key and placeholder is known, every value has the right form, and no value
can add a header to an email. Errors name the file and the line.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import date as Date  # noqa: N812 (``date`` is a key of the front matter)
from pathlib import Path
from typing import NoReturn

from newsletter.errors import IssueError
from newsletter.issues.parsing import merge_fields
from newsletter.issues.parsing.comments import without_comments
from newsletter.issues.parsing.front_matter import NULLS, YamlValue, read_front_matter
from newsletter.issues.parsing.text import normalized, read_text
from newsletter.issues.parsing.tracking_flags import TrackingChoice
from subscribers.field_values import LANGUAGE_TAG

TEMPLATES = ("digest", "letter")
#: Each key, and whether its value is free text.
_KEYS = {
    "subject": True,
    "preheader": True,
    "title": True,
    "date": False,
    "from": True,
    "reply_to": True,
    "topics": False,
    "template": False,
    "slug": True,
    "series": True,
    "archive": False,
    "language": False,
    "tracking": False,
}
_ADDRESS = r"[^@\s<>,;\"]+@[^@\s<>,;\"]+"
_FROM = re.compile(rf"(?:(?P<name>[^<>]*?)\s*<\s*(?P<in>{_ADDRESS})\s*>|(?P<bare>{_ADDRESS}))")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_SUBJECT = 300
_TOPIC = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Draft:
    """A parsed and validated issue file.

    ``from_email``, ``from_name``, ``reply_to`` and ``language`` are None where the publication's
    values apply. ``subject``, ``preheader`` and ``body`` may contain placeholders, ``title`` has
    none. ``archive`` says whether the issue may appear in the public archive, None if the file
    does not say; ``tracking`` says the same of click and open tracking. ``body`` has no HTML
    comments; ``body_line`` is its first line in the file ``name``, counted from 1; ``source`` is
    the whole file with ``\n`` for every line break.
    """

    name: str
    subject: str
    preheader: str
    title: str
    date: Date | None
    from_email: str | None
    from_name: str | None
    reply_to: str | None
    topics: tuple[str, ...]
    template: str
    slug: str
    series: str
    archive: bool | None
    language: str | None
    tracking: TrackingChoice
    body: str
    body_line: int
    source: str


class PlainTextDigestError(IssueError):
    """The text is a plain-text digest, which has to be imported."""


def read_issue(path: Path) -> Draft:
    """The issue in this file; IssueError names the line, the problem and what is allowed."""
    text = read_text(path)
    try:
        return parse_issue(text, name=str(path))
    except PlainTextDigestError as error:
        error.hint = f"Convert it: newsletter issue import {path} -o issue.md"
        raise


def parse_issue(text: str, *, name: str) -> Draft:
    """The issue in this text; ``name`` is its file name in errors."""
    text = normalized(text, name=name)
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        _no_front_matter(lines, name)
    closing = next((n for n, line in enumerate(lines) if n and line.rstrip() == "---"), None)
    if closing is None:
        raise IssueError(
            "the front matter is not closed",
            place=f"{name}:1",
            hint="Close it with a line of three dashes: ---",
        )
    front = _FrontMatter("\n".join(lines[1:closing]), name)
    body_line = closing + 2
    body = without_comments("\n".join(lines[closing + 1 :]), name=name, line=body_line)
    merge_fields.check(body, name=name, line=body_line)
    if not body.strip():
        front.refuse(None, "the issue has no text", "Write it below the front matter.", body_line)

    subject = front.text("subject", limit=_LONGEST_SUBJECT, personal_words=True)
    if not subject:
        front.refuse("subject", "the subject is missing", "Add a line like: subject: Our news")
    from_name, from_email = front.sender()
    template = front.template()
    return Draft(
        name=name,
        subject=subject,
        preheader=front.text("preheader", limit=300, personal_words=True),
        title=front.title(subject),
        date=front.date(),
        from_email=from_email,
        from_name=from_name,
        reply_to=front.matching("reply_to", _ADDRESS, "an address like editors@example.com"),
        topics=front.topics(),
        template=template,
        slug=front.slug(),
        series=front.series() or template,
        archive=front.archive(),
        language=front.language(),
        tracking=front.tracking(),
        body=body,
        body_line=body_line,
        source=text,
    )


def with_subject(draft: Draft, subject: str, *, place: str) -> Draft:
    """The same issue with another subject, by the rules of front matter; ``place`` names it."""
    subject = subject.strip()
    if not subject:
        raise IssueError("the subject is empty", place=place, hint="Write some words.")
    if len(subject) > _LONGEST_SUBJECT:
        hint = f"At most {_LONGEST_SUBJECT} are allowed."
        raise IssueError(f"the subject has {len(subject)} characters", place=place, hint=hint)
    if any(unicodedata.category(sign) in {"Cc", "Cs", "Zl", "Zp"} for sign in subject):
        hint = "Remove line breaks and control characters."
        raise IssueError("the subject is not one line of text", place=place, hint=hint)
    try:
        merge_fields.check(subject, name=place, line=1, links=False)
    except IssueError as error:
        raise IssueError(error.message, place=place, hint=error.hint) from None
    return replace(draft, subject=subject)


def slug_of(words: str) -> str:
    """``Engineering @ Scale`` → ``engineering-at-scale``; empty without ASCII letters or digits."""
    words = words.replace("@", " at ").replace("&", " and ")
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:100].rstrip("-")


def is_slug(words: str) -> bool:
    """Whether this can be an issue's slug."""
    return bool(_SLUG.fullmatch(words))


def _no_front_matter(lines: list[str], name: str) -> NoReturn:
    if any(map(_is_of_digest, lines)):
        raise PlainTextDigestError(
            "this looks like a plain-text digest, not an issue file",
            place=f"{name}:1",
            hint="Use “Import a plain-text digest” on the page New issue.",
        )
    first = next((n for n, line in enumerate(lines, 1) if line.strip()), 1)
    raise IssueError(
        "expected --- and the front matter here",
        place=f"{name}:{first}",
        hint="An issue file begins with front matter between two lines of ---, at least "
        "“subject: …”, followed by Markdown; see docs/reference/issue-format.md.",
    )


def _is_of_digest(line: str) -> bool:
    """Whether a line is a heading or an entry of a plain-text digest."""
    bare = line.rstrip(" \t")
    is_heading = bare.endswith("#") and len(bare) <= 102 and not bare[0].isspace()
    return (is_heading and len(bare) > 1) or (
        line.startswith("[") and "] · " in line and " · Source" in line.partition("] · ")[2]
    )


class _FrontMatter:
    """Reads each key of the front matter as its type; errors name the line."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._values = read_front_matter(text, name=name, keys=_KEYS)

    def refuse(self, key: str | None, message: str, hint: str, line: int = 1) -> NoReturn:
        """Raise IssueError at the key's line, or at ``line`` without the key."""
        value = self._values.get(key) if key else None
        line = value.line if value else line
        raise IssueError(message, place=f"{self._name}:{line}", hint=hint)

    def text(self, key: str, *, limit: int, personal_words: bool = False) -> str:
        """A one-line value, empty if absent; ``personal_words`` allows placeholders in it."""
        value = self._value(key)
        if value is None:
            return ""
        if value.text is None:
            self.refuse(key, f"{key} is text, not a list or a table", f"Write {key}: some text")
        if len(value.text) > limit:
            hint = f"At most {limit} are allowed."
            self.refuse(key, f"{key} has {len(value.text)} characters", hint)
        if personal_words:
            merge_fields.check(value.text, name=self._name, line=value.line, links=False)
        return value.text.strip()

    def _value(self, key: str) -> YamlValue | None:
        """The key's value; None for no value or null."""
        value = self._values.get(key)
        is_null = value is not None and value.is_plain and value.text in {"", *NULLS}
        return None if is_null else value

    def matching(self, key: str, pattern: str | re.Pattern[str], allowed: str) -> str | None:
        """A value that matches the pattern, None if absent."""
        value = self.text(key, limit=320)
        if value and not re.fullmatch(pattern, value):
            self.refuse(key, f"{key} has the wrong form", f"Allowed: {allowed}.")
        return value or None

    def title(self, subject: str) -> str:
        """The title for pages and lists: the same for everybody, so without placeholders."""
        title = self.text("title", limit=300)
        line = self._values["title" if title else "subject"].line

        def of(placeholder: merge_fields.Placeholder) -> str:
            if title:
                hint = "Use them in the subject instead."
                self.refuse("title", "the title cannot have placeholders", hint)
            return placeholder.default

        words = merge_fields.replace(title or subject, of, name=self._name, line=line)
        if title:
            return words
        # A placeholder without a default leaves a gap: “Hello , news”.
        return re.sub(r"\s+(?=[,.!?:;\s]|$)", "", words).strip(" ,:;") or self.slug()

    def sender(self) -> tuple[str | None, str | None]:
        """Name and email address of the sender, each None where the publication's applies."""
        value = self.matching("from", _FROM, "“Name <editors@example.com>” or an address")
        found = _FROM.fullmatch(value or "")
        if not found:
            return None, None
        return (found["name"] or "").strip(' "') or None, found["in"] or found["bare"]

    def topics(self) -> tuple[str, ...]:
        """The topics' slugs without duplicates, in the order written."""
        value = self._value("topics")
        if value is None:
            return ()
        hint = "Write a list of slugs: topics: [engineering, leadership]"
        if value.items is None:
            self.refuse("topics", "topics is a list", hint)
        for item in value.items:
            if not _TOPIC.fullmatch(item.text or ""):
                self.refuse(None, "this is not a topic's slug", hint, item.line)
        return tuple(dict.fromkeys(item.text or "" for item in value.items))

    def template(self) -> str:
        """``digest`` or ``letter``, the default."""
        chosen = self.text("template", limit=50) or "letter"
        if chosen not in TEMPLATES:
            self.refuse("template", f"there is no template {chosen}", "Allowed: digest, letter.")
        return chosen

    def slug(self) -> str:
        """The issue's slug, derived from the file name unless written."""
        allowed = "a-z, 0-9 and single dashes, up to 100, like our-news-12"
        written = self.matching("slug", _SLUG, allowed)
        slug = written or slug_of(Path(self._name).stem)
        if not slug or len(slug) > 100:
            self.refuse("slug", "the issue needs a slug", f"Add a line “slug: …” of {allowed}.")
        return slug

    def series(self) -> str | None:
        """The series that the issue belongs to."""
        return self.matching(
            "series", rf"(?=.{{1,100}}$){_SLUG.pattern}", "a-z, 0-9, single dashes"
        )

    def archive(self) -> bool | None:
        """Whether the public archive may show it; None if the file does not say."""
        value = self._value("archive")
        if value is None:
            return None
        if value.text not in {"true", "false"}:
            self.refuse("archive", "archive has to be true or false", "Write archive: false")
        return value.text == "true"

    def tracking(self) -> TrackingChoice:
        """Whether to track clicks and opens; None for each that the file does not name."""
        found = self._value("tracking")
        hint = "Write tracking: {clicks: false, opens: true}, or one of the two."
        if found is None:
            return TrackingChoice()
        if found.pairs is None:
            self.refuse("tracking", "tracking is not a table of clicks and opens", hint)
        choices: dict[str, bool] = {}
        for key, value in found.pairs:
            if key.text not in {"clicks", "opens"}:
                self.refuse(None, "tracking has only clicks and opens", hint, key.line)
            if key.text in choices:
                self.refuse(None, f"{key.text} is here a second time", "Keep one.", key.line)
            if value.text not in {"true", "false"}:
                self.refuse(None, f"{key.text} has to be true or false", hint, key.line)
            choices[key.text] = value.text == "true"
        return TrackingChoice(choices.get("clicks"), choices.get("opens"))

    def language(self) -> str | None:
        """A BCP 47 tag."""
        return self.matching("language", LANGUAGE_TAG, "a BCP 47 tag like en or de-AT")

    def date(self) -> Date | None:
        """The issue's date."""
        written = self.matching("date", r"\d{4}-\d\d-\d\d", "a day like 2026-03-27")
        try:
            return Date.fromisoformat(written) if written else None
        except ValueError:
            self.refuse("date", "there is no such day", "Allowed: a day like 2026-03-27.")
