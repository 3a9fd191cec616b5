"""An issue file: Markdown with YAML front matter, read into a Draft or refused by file and line.

What comes out is whole: every key known and of its kind, every placeholder known, no
value that could add a header to a mail.
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import date as Date  # noqa: N812 (``date`` is a key of the front matter)
from pathlib import Path
from typing import NoReturn

import yaml

from newsletter.errors import IssueError
from newsletter.issues import personal
from newsletter.issues.text import normalised, read_text
from newsletter.issues.tracked import Choice

TEMPLATES = ("digest", "letter")
_KEYS = (
    "subject",
    "preheader",
    "title",
    "date",
    "from",
    "reply_to",
    "topics",
    "template",
    "slug",
    "series",
    "archive",
    "language",
    "tracking",
)
_YAML = "tag:yaml.org,2002:"
_LINE_BREAK = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_ADDRESS = r"[^@\s<>,;\"]+@[^@\s<>,;\"]+"
_FROM = re.compile(rf"(?:(?P<name>[^<>]*?)\s*<\s*(?P<in>{_ADDRESS})\s*>|(?P<bare>{_ADDRESS}))")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TOPIC = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_DIGEST_MARKS = re.compile(r"^\[.+\] · .+ · Source\b|^\S.{0,100}#[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Draft:
    """An issue as its author wrote it, checked.

    ``from_email``, ``from_name``, ``reply_to`` and ``language`` are None where the
    house's own apply. ``subject``, ``preheader`` and ``body`` may hold placeholders,
    ``title`` holds none. ``archive`` is None where the file leaves it open whether the issue
    may stand in the public archive; ``tracking`` is what it says of measuring clicks and opens.
    ``body_line`` is the body's first line in the file ``name``, counted from 1; ``source`` is
    the whole file with ``\\n`` for every line break.
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
    tracking: Choice
    body: str
    body_line: int
    source: str


def read_issue(path: Path) -> Draft:
    """The issue in this file; IssueError says where it is wrong and what is allowed there."""
    return parse_issue(read_text(path), name=str(path))


def parse_issue(text: str, *, name: str) -> Draft:
    """The issue in this text; ``name`` is what errors call its file."""
    text = normalised(text, name=name)
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        _no_front_matter(text, lines, name)
    closing = next((n for n, line in enumerate(lines) if n and line.rstrip() == "---"), None)
    if closing is None:
        raise IssueError(
            "the front matter that begins here has no end",
            place=f"{name}:1",
            hint="Close it with a line of three dashes: ---",
        )
    front = _FrontMatter("\n".join(lines[1:closing]), name)
    body = "\n".join(lines[closing + 1 :])
    body_line = closing + 2
    personal.check(body, name=name, line=body_line)
    if not body.strip():
        front.refuse(None, "the issue has no text", "Write it below the front matter.", body_line)

    subject = front.text("subject", limit=300, personal_words=True)
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


def slug_of(words: str) -> str:
    """``Engineering @ Scale`` → ``engineering-at-scale``; empty when nothing of it can stay."""
    words = words.replace("@", " at ").replace("&", " and ")
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:100].rstrip("-")


def is_slug(words: str) -> bool:
    """Whether an issue can be called so."""
    return bool(_SLUG.fullmatch(words))


def _no_front_matter(text: str, lines: list[str], name: str) -> NoReturn:
    if _DIGEST_MARKS.search(text):
        raise IssueError(
            "this looks like a plain-text digest, not an issue file",
            place=f"{name}:1",
            hint=f"Make an issue file of it: newsletter issue import {name} -o issue.md",
        )
    first = next((n for n, line in enumerate(lines, 1) if line.strip()), 1)
    raise IssueError(
        "expected --- and the front matter here",
        place=f"{name}:{first}",
        hint="An issue file begins with front matter between two lines of ---, at least "
        "“subject: …”, followed by Markdown; see docs/issue-format.md.",
    )


class _FrontMatter:
    """The front matter's values, each with its line; refuses what is not documented."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._values: dict[str, yaml.Node] = {}
        node = self._composed(text)
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            self.refuse(None, "expected lines like “subject: Our news”", _allowed(), 2)
        for key, value in node.value:
            line = key.start_mark.line + 2
            if not isinstance(key, yaml.ScalarNode) or key.value not in _KEYS:
                what = f"“{key.value}”" if isinstance(key, yaml.ScalarNode) else "this"
                self.refuse(None, f"{what} is not a key of an issue", _allowed(), line)
            if key.value in self._values:
                self.refuse(None, f"{key.value} stands here a second time", "Keep one.", line)
            self._values[key.value] = value

    def _composed(self, text: str) -> yaml.Node | None:
        """The YAML nodes; values are read from them, so that each keeps its line."""
        try:
            node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = min(mark.line + 2, text.count("\n") + 2) if mark else 2
            problem = error.problem or error.context or "malformed"
            self.refuse(None, f"the front matter is not YAML: {problem}", _QUOTE, line)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 2
            self.refuse(None, f"the front matter is not YAML: {error.reason}", _QUOTE, line)
        except RecursionError:
            self.refuse(None, "the front matter is nested too deeply", _allowed(), 2)
        return node

    def refuse(self, key: str | None, message: str, hint: str, line: int = 1) -> NoReturn:
        """Raise IssueError at the key's line, or at ``line`` when the key is not there."""
        node = self._values.get(key) if key else None
        line = node.start_mark.line + 2 if node else line
        raise IssueError(message, place=f"{self._name}:{line}", hint=hint)

    def text(self, key: str, *, limit: int, personal_words: bool = False) -> str:
        """A value of one line, empty if absent; checked for placeholders where it may have some."""
        node = self._values.get(key)
        if node is None or node.tag == _YAML + "null":
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self.refuse(key, f"{key} is text, not a list or a table", f"Write {key}: some words")
        # YAML 1.1 reads Norwegian's ``no`` as false.
        if node.tag != _YAML + "str" and key not in {"language", "date"}:
            kind = node.tag.removeprefix(_YAML)
            self.refuse(key, f"{key} is text, and YAML reads this as {kind}", _QUOTE)
        value = str(node.value)
        if _LINE_BREAK.search(value):
            self.refuse(key, f"{key} has a line break", "Write it on one line.")
        if len(value) > limit:
            self.refuse(key, f"{key} has {len(value)} characters", f"At most {limit} are allowed.")
        if personal_words:
            line = node.start_mark.line + 2
            personal.check(value, name=self._name, line=line, links=False)
        return value.strip()

    def matching(self, key: str, pattern: str | re.Pattern[str], allowed: str) -> str | None:
        """A value of this form, None if absent."""
        value = self.text(key, limit=320)
        if value and not re.fullmatch(pattern, value):
            self.refuse(key, f"{key} is not of its form", f"Allowed is {allowed}.")
        return value or None

    def title(self, subject: str) -> str:
        """What the issue is called where nobody is spoken to: never personal."""
        title = self.text("title", limit=300)
        line = self._values["title" if title else "subject"].start_mark.line + 2

        def of(placeholder: personal.Placeholder) -> str:
            if title:
                self.refuse("title", "a title has no placeholders", "Put them into the subject.")
            return placeholder.default

        words = personal.replace(title or subject, of, name=self._name, line=line)
        if title:
            return words
        # What a placeholder without a default leaves behind: “Hello , news”.
        return re.sub(r"\s+(?=[,.!?:;\s]|$)", "", words).strip(" ,:;") or self.slug()

    def sender(self) -> tuple[str | None, str | None]:
        """Name and address, each None where the house's own applies."""
        value = self.matching("from", _FROM, "“Name <editors@example.com>” or an address")
        found = _FROM.fullmatch(value or "")
        if not found:
            return None, None
        return (found["name"] or "").strip(' "') or None, found["in"] or found["bare"]

    def topics(self) -> tuple[str, ...]:
        """The topics' slugs, each once, in the order written."""
        node = self._values.get("topics")
        if node is None or node.tag == _YAML + "null":
            return ()
        hint = "Write a list of slugs: topics: [engineering, leadership]"
        if not isinstance(node, yaml.SequenceNode):
            self.refuse("topics", "topics is a list", hint)
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode) or not _TOPIC.fullmatch(item.value):
                self.refuse(None, "this is not a topic's slug", hint, item.start_mark.line + 2)
        return tuple(dict.fromkeys(item.value for item in node.value))

    def template(self) -> str:
        """``digest`` or ``letter``, the default."""
        chosen = self.text("template", limit=50) or "letter"
        if chosen not in TEMPLATES:
            self.refuse("template", f"there is no template {chosen}", "Allowed: digest, letter.")
        return chosen

    def slug(self) -> str:
        """The issue's name in addresses, made of the file's name unless written."""
        allowed = "a-z, 0-9 and single dashes, up to 100, like our-news-12"
        written = self.matching("slug", _SLUG, allowed)
        slug = written or slug_of(Path(self._name).stem)
        if not slug or len(slug) > 100:
            self.refuse("slug", "the issue needs a slug", f"Add a line “slug: …” of {allowed}.")
        return slug

    def series(self) -> str | None:
        """What the issue is the next of."""
        return self.matching(
            "series", rf"(?=.{{1,100}}$){_SLUG.pattern}", "a-z, 0-9, single dashes"
        )

    def archive(self) -> bool | None:
        """Whether the public archive may show it; None where nothing is said."""
        node = self._values.get("archive")
        if node is None or node.tag == _YAML + "null":
            return None
        if not isinstance(node, yaml.ScalarNode) or node.value not in {"true", "false"}:
            self.refuse("archive", "archive is true or false", "Write archive: false")
        return node.value == "true"  # type: ignore[no-any-return]

    def tracking(self) -> Choice:
        """Whether clicks and opens are measured; what is not named is left open."""
        node = self._values.get("tracking")
        hint = "Write tracking: {clicks: false, opens: true}, or one of the two."
        if node is None or node.tag == _YAML + "null":
            return Choice()
        if not isinstance(node, yaml.MappingNode):
            self.refuse("tracking", "tracking says which of clicks and opens are measured", hint)
        said: dict[str, bool] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            line = key.start_mark.line + 2
            if name not in {"clicks", "opens"}:
                self.refuse(None, "tracking knows clicks and opens only", hint, line)
            if name in said:
                self.refuse(None, f"{name} stands here a second time", "Keep one.", line)
            if not isinstance(value, yaml.ScalarNode) or value.value not in {"true", "false"}:
                self.refuse(None, f"{name} is true or false", hint, line)
            said[name] = value.value == "true"
        return Choice(said.get("clicks"), said.get("opens"))

    def language(self) -> str | None:
        """A BCP 47 tag."""
        return self.matching("language", _LANGUAGE, "a BCP 47 tag like en or de-AT")

    def date(self) -> Date | None:
        """The day that the issue bears."""
        written = self.matching("date", r"\d{4}-\d\d-\d\d", "a day like 2026-03-27")
        try:
            return Date.fromisoformat(written) if written else None
        except ValueError:
            self.refuse("date", "there is no such day", "Allowed is a day like 2026-03-27.")


_QUOTE = 'Put the value into quotes, e.g. subject: "Scale: {{ name }}, our news"'


def _allowed() -> str:
    return f"Allowed: {', '.join(_KEYS)}."
