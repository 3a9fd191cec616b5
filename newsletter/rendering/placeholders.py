"""Personal values: the tags in a rendered issue, and each recipient's values for them.

The provider replaces tags as raw text in the HTML part, the text part and the subject. So a value
has up to three forms, each with its own tag: escaped for HTML, plain for text and subject,
percent-encoded for links. The link token needs one form only. Tags consist of ``-``, ``a-z`` and
``0-9``, so MJML, premailer and URL escaping do not change them: ``-nlk7fqa1h-`` is the HTML form
of the first value.
"""

import hashlib
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from newsletter.issues.parsing import merge_fields

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_NONCE_CHARS = 5
#: SendGrid refuses a request of a thousand when one person's substitutions pass 10,000 bytes.
_MAX_BYTES = 9_500
#: The most substitutions for one recipient (SendGrid's page of errors for Mail Send).
MOST_TAGS = 150
_MAX_TOKEN = 200
_MAX_VALUE = 500
#: The most bytes that one character takes in each form: ``&quot;``, UTF-8, ``%F0%9F%98%80``.
_WIDEST = {"h": 6, "t": 4, "q": 12}
#: Line breaks would end a subject; lone surrogates cannot be encoded.
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class PersonalValue:
    """A personal value: its placeholder's name and default, and its tags (empty: not used)."""

    name: str
    default: str
    html: str
    plain: str
    url: str


@dataclass(frozen=True, slots=True)
class Placeholders:
    """The tags of one rendered issue. ``token`` is the link token's tag, empty if not used."""

    prefix: str
    token: str
    values: tuple[PersonalValue, ...]
    #: Key, whether it is an attribute, tags, the default's forms. Computed once, used for every
    #: recipient.
    _steps: tuple[tuple[str, bool, str, str, str, tuple[str, str, str]], ...] = field(
        init=False, repr=False, compare=False
    )
    _limit: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        weight = sum(
            _WIDEST[form] * bool(tag)
            for value in self.values
            for form, tag in zip("htq", (value.html, value.plain, value.url), strict=True)
        )
        names = 3 * len(self.values) * (len(self.prefix) + 6)
        limit = min(_MAX_VALUE, max(1, (_MAX_BYTES - _MAX_TOKEN - names) // max(1, weight)))
        steps = tuple(
            (
                value.name.removeprefix("attributes."),
                value.name.startswith("attributes."),
                value.html,
                value.plain,
                value.url,
                _forms(_clean(value.default, limit), self.prefix),
            )
            for value in self.values
        )
        object.__setattr__(self, "_limit", limit)
        object.__setattr__(self, "_steps", steps)

    @property
    def tags(self) -> int:
        """How many tags are replaced for each recipient."""
        forms = (form for value in self.values for form in (value.html, value.plain, value.url))
        return sum(map(bool, (self.token, *forms)))

    @property
    def uses_attributes(self) -> bool:
        """Whether any value is an attribute of the subscriber."""
        return any(is_attribute for _, is_attribute, *_ in self._steps)

    def substitutions(self, person: Mapping[str, Any], token: str) -> dict[str, str]:
        """Tag → the recipient's text, for the tags in use.

        ``person`` has ``name`` and ``email`` (text) and ``attributes`` (a mapping); a missing or
        blank value gives the default. ``token`` is the recipient's link token.
        """
        result = {self.token: token} if self.token else {}
        attributes = person.get("attributes") or {}
        prefix, limit = self.prefix, self._limit
        for key, is_attribute, html_tag, plain_tag, url_tag, default in self._steps:
            raw = (attributes if is_attribute else person).get(key)
            text = raw if type(raw) is str else _readable(raw)
            # Most values are short and printable, and need no cleaning.
            if len(text) > limit or not text.isprintable():
                text = _clean(text, limit)
            if not text or text.isspace():
                escaped, text, quoted = default
            elif prefix in text:
                escaped, text, quoted = _forms(text, prefix)
            else:
                escaped = html.escape(text) if html_tag else ""
                quoted = quote(text, safe="") if url_tag else ""
            if html_tag:
                result[html_tag] = escaped
            if plain_tag:
                result[plain_tag] = text
            if url_tag:
                result[url_tag] = quoted
        return result

    def most_bytes(self, html: str) -> int:
        """The most bytes that this HTML part can have, with every value at its greatest length."""
        size = len(html.encode())
        if self.token:
            size += html.count(self.token) * (_MAX_TOKEN - len(self.token))
        for value in self.values:
            for tag, form in ((value.html, "h"), (value.url, "q")):
                if tag:
                    size += html.count(tag) * (self._limit * _WIDEST[form] - len(tag))
        return size

    def to_json(self) -> dict[str, Any]:
        """A JSON object to store with the send; ``from_json`` reads it."""
        values = [[v.name, v.default, v.html, v.plain, v.url] for v in self.values]
        return {"prefix": self.prefix, "token": self.token, "values": values}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Placeholders":
        """The placeholders from the result of ``to_json``."""
        values = tuple(PersonalValue(*value) for value in stored["values"])
        return cls(stored["prefix"], stored["token"], values)


def fill(text: str, substitutions: Mapping[str, str]) -> str:
    """Replace each tag in a single pass, so that a tag within a value stays unchanged."""
    if not substitutions:
        return text
    tags = re.compile("|".join(map(re.escape, substitutions)))
    return tags.sub(lambda found: substitutions[found[0]], text)


class Marks:
    """The placeholders of one issue during rendering.

    ``mark`` replaces each placeholder by a plain word (``nlk7fqa1x``), which Markdown treats like
    any word. After Markdown, ``in_html``, ``in_text`` and ``in_url`` turn the words into the tags
    for the form that is needed there.
    """

    def __init__(self, seed: str, *, avoid: Iterable[str], links: Mapping[str, str]) -> None:
        """``seed`` makes the marks deterministic; no text of ``avoid`` contains them.

        ``links`` maps each link placeholder to its URL, without the token at its end.
        """
        taken = "\n".join(avoid).casefold()
        self._nonce = next(nonce for nonce in _nonces(seed) if nonce not in taken)
        self._links = links
        self._known: dict[merge_fields.Placeholder, int] = {}
        self._marks = re.compile(rf"{self._nonce}(\d+)x")

    @property
    def pattern(self) -> str:
        """A regular expression that matches the marks."""
        return rf"{self._nonce}(?:\d+|b)x"

    @property
    def braces(self) -> str:
        """The mark for a literal ``{{``."""
        return f"{self._nonce}bx"

    def mark(self, text: str, *, name: str, line: int) -> str:
        """The text with a mark for each placeholder, on the same lines. Raises IssueError."""
        return merge_fields.replace(text, self._word, name=name, line=line, braces=self.braces)

    def link(self, placeholder: str) -> str:
        """The URL of a link placeholder, ending in the token's tag."""
        return self._links[placeholder] + self._tag(0, "u")

    def in_html(self, text: str) -> str:
        """Replace marks by the tags of escaped values."""
        return self._tags(text, "h")

    def in_text(self, text: str) -> str:
        """Replace marks by the tags of plain values."""
        return self._tags(text, "t")

    def in_url(self, text: str) -> str:
        """Replace marks by the tags of percent-encoded values."""
        return self._tags(text, "q").replace("{{", "%7B%7B")

    def in_defaults(self, text: str) -> str:
        """Replace marks by defaults, for texts that are the same for all recipients."""
        defaults = {index: placeholder.default for placeholder, index in self._known.items()}
        plain = self._marks.sub(lambda found: defaults.get(int(found[1]), ""), text)
        return " ".join(plain.replace(self.braces, "{{").split())

    def placeholders(self, *parts: str) -> Placeholders:
        """The tags that occur in the finished parts."""
        tags = re.compile(rf"-{self._nonce}\d+[htqu]-")
        there = {tag for part in parts for tag in tags.findall(part)}

        def used(index: int, form: str) -> str:
            tag = self._tag(index, form)
            return tag if tag in there else ""

        values = (
            PersonalValue(p.name, p.default, used(i, "h"), used(i, "t"), used(i, "q"))
            for p, i in self._known.items()
        )
        return Placeholders(
            f"-{self._nonce}",
            used(0, "u"),
            tuple(value for value in values if value.html or value.plain or value.url),
        )

    def _word(self, placeholder: merge_fields.Placeholder) -> str:
        if placeholder.is_link:
            return f"{self._links[placeholder.name]}{self._nonce}0x"
        index = self._known.setdefault(placeholder, len(self._known) + 1)
        return f"{self._nonce}{index}x"

    def _tags(self, text: str, form: str) -> str:
        def tag(found: re.Match[str]) -> str:
            index = int(found[1])
            return self._tag(index, form if index else "u")

        return self._marks.sub(tag, text).replace(self.braces, "{{")

    def _tag(self, index: int, form: str) -> str:
        return f"-{self._nonce}{index}{form}-"


def _nonces(seed: str) -> Iterator[str]:
    attempt = 0
    while True:
        number = int.from_bytes(hashlib.sha256(f"{attempt}\0{seed}".encode()).digest()[:8])
        digits = (_ALPHABET[number // 36**place % 36] for place in range(_NONCE_CHARS))
        # The last character is a letter, because a number follows it.
        yield f"nl{''.join(digits)}{_ALPHABET[10 + number % 26]}"
        attempt += 1


def _readable(value: object) -> str:
    """An attribute as text for readers; lists as ``a, b``."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_readable(item) for item in value)
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _clean(text: str, limit: int) -> str:
    """The text on one line, encodable, cut to the limit."""
    text = _SURROGATES.sub("\ufffd", _BREAKS.sub(" ", text)).strip()
    if len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    return text


def _forms(text: str, prefix: str) -> tuple[str, str, str]:
    """HTML, plain and URL form of a value, in which no tag is recognized."""
    # The provider replaces one tag after the other, so it would find a tag within a value, too.
    # HTML and URLs escape the dash; plain text uses a dash that looks the same.
    return (
        html.escape(text).replace(prefix, "&#45;" + prefix[1:]),
        text.replace(prefix, "\u2011" + prefix[1:]),
        quote(text, safe="").replace(prefix, "%2D" + prefix[1:]),
    )
