"""The levels and limits of checks, read from config/checks.toml.

An operator's own file contains only the values that differ.
"""

import difflib
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from newsletter.checking.caniemail_data import support
from newsletter.errors import SettingsError
from newsletter.settings.kinds import Duration

_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0)]


class CheckRule(BaseModel):
    """A check with a level and no other setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["warn", "block", "off"]


class Size(CheckRule):
    """The greatest size of the HTML part, in bytes."""

    most: _Count


class Length(CheckRule):
    """The greatest and least length of a line, in characters."""

    longest: _Count
    shortest: _Count = 0


class Images(CheckRule):
    """The greatest width of an image, in pixels."""

    widest: _Count


class DeadLinks(CheckRule):
    """How links are requested."""

    patience: Duration
    at_once: Annotated[int, Field(ge=1, le=64)]
    #: Also request addresses in private networks; for tests only.
    private_networks: bool


class Contrast(CheckRule):
    """WCAG's ratios for small and for large text."""

    text: _Share
    large: _Share


class Shorteners(CheckRule):
    """The hosts that shorten addresses."""

    hosts: list[str]


class SpamPhrases(CheckRule):
    """The phrases of spam; letter case does not matter."""

    phrases: list[str]


def _client(word: str) -> str:
    if word not in (names := support().names):
        near = difflib.get_close_matches(word, names, n=3, cutoff=0.3)
        raise ValueError(f"caniemail knows no client {word}; it knows {', '.join(near or names)}")
    return word


def _feature(word: str) -> str:
    slugs = [feature.slug for feature in support().features]
    if word not in slugs:
        near = difflib.get_close_matches(word, slugs, n=3, cutoff=0.3)
        raise ValueError(f"caniemail knows no feature {word}; it knows {', '.join(near)} …")
    return word


class Clients(CheckRule):
    """The clients to support, and features that they may lack without harm."""

    matter: list[Annotated[str, AfterValidator(_client)]]
    harmless: list[Annotated[str, AfterValidator(_feature)]]


class AudienceLimits(CheckRule):
    """The greatest and least ratio of this audience to that of the last send."""

    grown: _Share
    shrunk: _Share


class DurationLimit(CheckRule):
    """The longest duration of a send, and the emails per second before any was measured."""

    longest: Duration
    per_second: Annotated[float, Field(gt=0)]


class Price(BaseModel):
    """The price of a thousand emails in a send of at least ``from`` emails."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_: Annotated[int, Field(ge=0, alias="from")]
    per_thousand: Annotated[Decimal, Field(ge=0)]


class Cost(CheckRule):
    """The greatest cost of a send."""

    most: Annotated[Decimal, Field(ge=0)]
    currency: str
    prices: list[Price]


class CheckRules(BaseModel):
    """Every check, by its id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Size
    subject: Length
    preheader: Length
    unsubscribe: CheckRule
    postal_address: CheckRule
    text_part: CheckRule
    links: CheckRule
    dead_links: DeadLinks
    images: Images
    markup: CheckRule
    unfinished: CheckRule
    attachment: CheckRule
    shorteners: Shorteners
    spam_phrases: SpamPhrases
    placeholders: CheckRule
    contrast: Contrast
    clients: Clients
    sender_domain: CheckRule
    audience: AudienceLimits
    had_it: CheckRule
    duration: DurationLimit
    cost: Cost


def load_rules(built_in: Path, own: Path | None = None) -> CheckRules:
    """The built-in rules, overridden by the operator's file; SettingsError names key and remedy."""
    merged = _read(built_in)
    for check, values in (_read(own) if own else {}).items():
        known = merged.get(check)
        mixed = isinstance(known, dict) and isinstance(values, dict)
        merged[check] = {**known, **values} if mixed else values  # type: ignore[dict-item]
    try:
        return CheckRules.model_validate(merged)
    except ValidationError as error:
        raise _explained(error, own or built_in) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, ValueError) as error:
        hint = "It has to be a TOML file like config/checks.toml."
        raise SettingsError(f"cannot be read: {error}", place=str(path), hint=hint) from None


def _explained(error: ValidationError, path: Path) -> SettingsError:
    """The first validation error as a message for the operator."""
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    place = f"{path.name}: {key}"
    if first["type"] == "extra_forbidden":
        check, *inside = first["loc"]
        model = CheckRules.model_fields[str(check)].annotation if inside else CheckRules
        known: Mapping[str, object] = getattr(model, "model_fields", {})
        hint = f"Known here: {', '.join(known)}."
        return SettingsError("there is no such key", place=place, hint=hint)
    message = first["msg"].removeprefix("Value error, ")
    hint = "config/checks.toml describes each key."
    return SettingsError(message[0].lower() + message[1:], place=place, hint=hint)
