"""From what somebody typed, or a program sent, to a signup: every field checked.

All that is wrong is said at once, each complaint under its field's name.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar
from zoneinfo import available_timezones

from newsletter.errors import AddressError, UserError
from subscribers.consent.topics import Matcher
from subscribers.email_address import Address, parse
from subscribers.signup import domain_checks

_T = TypeVar("_T")
_D = TypeVar("_D")

_MAX_ADDRESS = 320
_MAX_NAME = 200
_MAX_TOPICS = 100
_MAX_ATTRIBUTES = 20
_MAX_VALUE = 500
_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FORM = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
#: Turn the text around them, and with it what a reader takes it for.
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")

#: The name under which a form is recorded that gives none.
UNNAMED = "unnamed"


class FieldError(UserError):
    """What one field says cannot be used; ``place`` is the field's name."""

    def __init__(self, field: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, place=field, hint=hint)
        self.field = field


class SignupError(UserError):
    """A signup that cannot be taken; ``problems`` says why, field by field."""

    def __init__(self, problems: Sequence[FieldError]) -> None:
        first = problems[0]
        super().__init__(first.message, place=first.place, hint=first.hint)
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Signup:
    """A wish to subscribe, well-formed. Nothing in it is proved."""

    address: Address
    name: str = ""
    topics: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    timezone: str | None = None
    #: Which form it came through, and the words of consent that the form showed.
    form: str = UNNAMED
    wording: str = ""
    ip: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class SignupRules:
    """What is asked of a signup beyond its form."""

    #: The topics that there are, by slug. Who chooses none of them gets all of them.
    topics: Collection[str]
    #: Their names, which mean them as well: slug → name.
    topic_names: Mapping[str, str] = field(default_factory=dict)
    #: Attributes that a form may set. Whatever else is asked for is refused: segments grant by
    #: attributes, and anybody can post.
    fields: Collection[str] = ()
    wording: str = ""
    refuse_disposable: bool = False
    #: Whether a domain takes mail; None where nobody asks.
    takes_mail: Callable[[str], bool] | None = None


def parse_signup(
    fields: Mapping[str, object],
    rules: SignupRules,
    *,
    ip: str | None = None,
    user_agent: str | None = None,
) -> Signup:
    """The signup in ``fields``: email, name, topics, attributes, language, timezone and form.

    Raises SignupError with a FieldError for each field that cannot be used.
    """
    problems: list[FieldError] = []
    checked = _Checked(problems)
    address = checked(_address, fields.get("email"), rules, default=None)
    name = checked(_name, fields.get("name"), default="")
    topics = checked(_topics, fields.get("topics"), rules, default=())
    attributes = checked(_attributes, fields.get("attributes"), rules, default={})
    language = checked(_language, fields.get("language"), default=None)
    timezone = checked(_timezone, fields.get("timezone"), default=None)
    form = checked(_form, fields.get("form"), default=UNNAMED)
    if address is None or problems:
        raise SignupError(problems)
    # Last, because it asks the network.
    if rules.takes_mail is not None and not rules.takes_mail(address.domain):
        raise SignupError(
            [FieldError("email", f"{address.domain} takes no mail", hint="Is it misspelt?")]
        )
    return Signup(
        address, name, topics, attributes, language, timezone, form, rules.wording, ip, user_agent
    )


class _Checked:
    """Reads one field after the other, and notes what is wrong instead of stopping there."""

    def __init__(self, problems: list[FieldError]) -> None:
        self._problems = problems

    def __call__(self, read: Callable[..., _T], *given: object, default: _D) -> _T | _D:
        try:
            return read(*given)
        except FieldError as error:
            self._problems.append(error)
            return default


def _address(value: object, rules: SignupRules) -> Address:
    text = _text("email", value, _MAX_ADDRESS)
    if not text:
        raise FieldError("email", "an email address is needed")
    try:
        address = parse(text)
    except AddressError:
        raise FieldError(
            "email", "this is not an email address", hint="It looks like ada@example.org."
        ) from None
    if rules.refuse_disposable and domain_checks.is_disposable(address.domain):
        raise FieldError(
            "email",
            "this is an address for one use only",
            hint="Give one that you will read for longer.",
        )
    return address


def _name(value: object) -> str:
    return _text("name", value, _MAX_NAME)


def _topics(value: object, rules: SignupRules) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value or []
    if not isinstance(given, list | tuple) or not all(isinstance(slug, str) for slug in given):
        raise FieldError("topics", "this is no list of topics")
    if len(given) > _MAX_TOPICS:
        raise FieldError("topics", f"more than {_MAX_TOPICS} topics")
    known = Matcher((slug, rules.topic_names.get(slug, slug)) for slug in rules.topics)
    chosen: dict[str, None] = {}
    for word in (word.strip() for word in given if word.strip()):
        slug = known.find(word)
        if slug is None:
            shown = _text("topics", word, 64)
            raise FieldError("topics", f"there is no topic “{shown}”")
        chosen[slug] = None
    # The form says so: somebody who asks for the newsletter and for no part of it wants it.
    return tuple(chosen or dict.fromkeys(rules.topics))


def _attributes(value: object, rules: SignupRules) -> dict[str, str]:
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise FieldError("attributes", "these are not names with values")
    if len(value) > _MAX_ATTRIBUTES:
        raise FieldError("attributes", f"more than {_MAX_ATTRIBUTES} fields")
    kept = {}
    for name, given in value.items():
        if not isinstance(name, str) or not _ATTRIBUTE.fullmatch(name):
            raise FieldError(
                "attributes",
                "a field’s name has letters a to z, digits and underscores, and begins with a "
                "letter",
            )
        if name not in rules.fields:
            raise FieldError(
                f"attributes.{name}",
                f"a signup cannot set “{name}”",
                hint="Send it without that. (Operators name the fields of their forms in "
                "signup.fields.)",
            )
        # What was left empty says nothing: it must not wipe out what is known.
        if text := _text(f"attributes.{name}", given, _MAX_VALUE, lines=True):
            kept[name] = text
    return kept


def _language(value: object) -> str | None:
    tag = _text("language", value, 35)
    if tag and not _LANGUAGE.fullmatch(tag):
        raise FieldError("language", "this is not a language", hint="Write it like en or de-AT.")
    return tag or None


def _timezone(value: object) -> str | None:
    name = _text("timezone", value, 64)
    if name and name not in _timezones():
        raise FieldError("timezone", "this is not a time zone", hint="Write it like Europe/Berlin.")
    return name or None


def _form(value: object) -> str:
    name = _text("form", value, 60)
    if name and not _FORM.fullmatch(name):
        raise FieldError("form", "a form’s name has letters a to z, digits, - and _")
    return name or UNNAMED


def _text(field: str, value: object, most: int, *, lines: bool = False) -> str:
    """The text of a field, without blanks around it."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FieldError(field, "this is not text")
    text = value.strip()
    if len(text) > most:
        raise FieldError(field, f"this is longer than {most} characters")
    allowed = "\n\r\t" if lines else ""
    if _DIRECTION.search(text) or any(
        unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} and c not in allowed for c in text
    ):
        raise FieldError(field, "this holds characters that cannot be shown")
    return text


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    """Names of time zones; finding them reads a folder."""
    return frozenset(available_timezones())
