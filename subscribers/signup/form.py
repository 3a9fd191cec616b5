"""Turns the fields of a sign-up form or an API request into a checked signup.

All errors are reported at once, each under the name of its field.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from newsletter.errors import AddressError, UserError
from subscribers.consent.topics import Matcher
from subscribers.email_address import Address, parse
from subscribers.field_values import LANGUAGE_TAG, is_timezone
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
#: Characters that change the direction of the text around them, and so its apparent meaning.
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")

#: The recorded name of a form that gives none.
UNNAMED = "unnamed"


class FieldError(UserError):
    """A field has an unusable value; ``place`` is the field's name."""

    def __init__(self, field: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, place=field, hint=hint)
        self.field = field


class SignupError(UserError):
    """A signup has unusable fields; ``problems`` has one error for each."""

    def __init__(self, problems: Sequence[FieldError]) -> None:
        first = problems[0]
        super().__init__(first.message, place=first.place, hint=first.hint)
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Signup:
    """A well-formed signup. Nothing in it is proved yet."""

    address: Address
    name: str = ""
    topics: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    timezone: str | None = None
    #: The form it came through, and the consent wording that the form showed.
    form: str = UNNAMED
    wording: str = ""
    ip: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class SignupRules:
    """The rules that a signup is checked against."""

    #: Slugs of the existing topics. A signup without topics gets all of them.
    topics: Collection[str]
    #: Their names, which are accepted as well: slug → name.
    topic_names: Mapping[str, str] = field(default_factory=dict)
    #: Attributes that a form may set. Others are refused: segments select by attributes, and
    #: anybody can post a form.
    fields: Collection[str] = ()
    wording: str = ""
    refuse_disposable: bool = False
    #: Checks whether a domain accepts email; None to skip the check.
    accepts_email: Callable[[str], bool] | None = None


def parse_signup(
    fields: Mapping[str, object],
    rules: SignupRules,
    *,
    ip: str | None = None,
    user_agent: str | None = None,
) -> Signup:
    """The signup in ``fields``: email, name, topics, attributes, language, timezone and form.

    Raises SignupError with a FieldError for each unusable field.
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
    # Last, because it queries the network.
    if rules.accepts_email is not None and not rules.accepts_email(address.domain):
        raise SignupError(
            [
                FieldError(
                    "email", f"{address.domain} does not accept email", hint="Is it misspelled?"
                )
            ]
        )
    return Signup(
        address, name, topics, attributes, language, timezone, form, rules.wording, ip, user_agent
    )


class _Checked:
    """Reads one field after the other, and collects errors instead of stopping at the first."""

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
            "email", "this is not an email address", hint="Write it like ada@example.org."
        ) from None
    if rules.refuse_disposable and domain_checks.is_disposable(address.domain):
        raise FieldError(
            "email",
            "this is a disposable address",
            hint="Use an address that you will keep.",
        )
    return address


def _name(value: object) -> str:
    return _text("name", value, _MAX_NAME)


def _topics(value: object, rules: SignupRules) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value or []
    if not isinstance(given, list | tuple) or not all(isinstance(slug, str) for slug in given):
        raise FieldError("topics", "this is not a list of topics")
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
    # The form says so: a signup that chooses no topic gets the whole newsletter.
    return tuple(chosen or dict.fromkeys(rules.topics))


def _attributes(value: object, rules: SignupRules) -> dict[str, str]:
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise FieldError("attributes", "this is not a list of names with values")
    if len(value) > _MAX_ATTRIBUTES:
        raise FieldError("attributes", f"more than {_MAX_ATTRIBUTES} fields")
    kept = {}
    for name, given in value.items():
        if not isinstance(name, str) or not _ATTRIBUTE.fullmatch(name):
            raise FieldError(
                "attributes",
                "a field’s name begins with a letter and has only a to z, digits and underscores",
            )
        if name not in rules.fields:
            raise FieldError(
                f"attributes.{name}",
                f"a signup cannot set “{name}”",
                hint="Leave it out. (Operators list the fields that forms may set in "
                "signup.fields.)",
            )
        # An empty field is skipped: it must not overwrite a known value.
        if text := _text(f"attributes.{name}", given, _MAX_VALUE, lines=True):
            kept[name] = text
    return kept


def _language(value: object) -> str | None:
    tag = _text("language", value, 35)
    if tag and not LANGUAGE_TAG.fullmatch(tag):
        raise FieldError("language", "this is not a language", hint="Write it like en or de-AT.")
    return tag or None


def _timezone(value: object) -> str | None:
    name = _text("timezone", value, 64)
    if name and not is_timezone(name):
        raise FieldError("timezone", "this is not a time zone", hint="Write it like Europe/Berlin.")
    return name or None


def _form(value: object) -> str:
    name = _text("form", value, 60)
    if name and not _FORM.fullmatch(name):
        raise FieldError("form", "a form’s name has only letters a to z, digits, - and _")
    return name or UNNAMED


def _text(field: str, value: object, most: int, *, lines: bool = False) -> str:
    """The text of a field, stripped."""
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
        raise FieldError(field, "this contains characters that cannot be shown")
    return text
