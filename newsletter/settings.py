"""Settings: config/default.toml, then the operator's file, then the environment.

Each value remembers where it came from. A key that is unknown or of the wrong kind
stops the start, and says where it stands and what is allowed there.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    SecretStr,
    ValidationError,
)

from newsletter.errors import SettingsError
from newsletter.setting_kinds import duration_text, masked_url
from newsletter.setting_sections import (
    Audience,
    Checks,
    Console,
    Imports,
    Inbound,
    LinkKeys,
    PublicArchive,
    Review,
    Section,
    Sender,
    SendGrid,
    Sending,
    Signup,
    Site,
    Templates,
    Tracking,
    Web,
)

_PREFIX = "NEWSLETTER_"
#: Names the operator's file, so it is not itself a setting.
_FILE_VARIABLE = "NEWSLETTER_CONFIG"


def resource(name: str) -> Path:
    """A folder of files for operators (``templates/email``), in the repository or the wheel."""
    packed = Path(__file__).parent / f"_{name}"
    return packed if packed.is_dir() else Path(__file__).parent.parent / name


class Settings(Section):
    """Everything in force."""

    database_url: str
    site: Site
    sender: Sender
    sendgrid: SendGrid
    links: LinkKeys
    subscribers: Audience
    inbound: Inbound
    signup: Signup
    review: Review
    checks: Checks
    archive: PublicArchive
    sending: Sending
    tracking: Tracking
    console: Console
    imports: Imports
    web: Web
    templates: Templates

    @property
    def templates_directory(self) -> Path:
        """The operator's templates, or the built-in ones."""
        chosen = self.templates.directory
        return Path(chosen) if chosen else resource("templates/email")


@dataclass(frozen=True, slots=True)
class Origin:
    """One value in force: dotted key, the text to show (secrets masked), and its source."""

    key: str
    shown: str
    source: str


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force; SettingsError names the source, the key and what is allowed."""
    return load_with_origins(environ)[0]


def load_with_origins(environ: Mapping[str, str] | None = None) -> tuple[Settings, list[Origin]]:
    """The settings in force, and where each came from, in the order of default.toml."""
    environ = os.environ if environ is None else environ
    default = resource("config") / "default.toml"
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in (
        (default.name, _read(default)),
        *_operators_file(environ),
        *_from_environment(environ),
    ):
        for key, value in _leaves(values):
            _put(merged, key, value)
            sources[".".join(key)] = source
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise _explained(error, sources) from None
    return settings, [
        Origin(key, _masked(settings, key), source) for key, source in sources.items()
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            "there is no such file", place=str(path), hint=f"{_FILE_VARIABLE} names it."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot be read as TOML: {error}", place=str(path)) from None


def _operators_file(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if name := environ.get(_FILE_VARIABLE):
        yield name, _read(Path(name))


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in sorted(environ.items()):
        if name.startswith(_PREFIX) and name != _FILE_VARIABLE:
            nested: dict[str, Any] = {}
            _put(nested, name.removeprefix(_PREFIX).lower().split("__"), value)
            yield name, nested


def _leaves(
    values: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _put(into: dict[str, Any], key: tuple[str, ...] | list[str], value: object) -> None:
    for part in key[:-1]:
        below = into.setdefault(part, {})
        if not isinstance(below, dict):  # a plain value stands where a table is meant
            below = into[part] = {}
        into = below
    into[key[-1]] = value


def _explained(error: ValidationError, sources: Mapping[str, str]) -> SettingsError:
    """The first complaint, in the operator's words."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in first["loc"] if not isinstance(part, int)]
    key = ".".join(path)
    source = sources.get(key) or next(
        (origin for known, origin in sources.items() if known.startswith(key)), "default.toml"
    )
    if first["type"] == "extra_forbidden":
        return SettingsError(
            "there is no such setting",
            place=f"{source}: {key}",
            hint=f"Known here: {', '.join(_known(path[:-1]))}.",
        )
    message = first["msg"].removeprefix("Value error, ")
    return SettingsError(message[0].lower() + message[1:], place=f"{source}: {key}")


def _known(path: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return sorted(model.model_fields)
        model = field.annotation
    return sorted(model.model_fields)


def _masked(settings: Settings, key: str) -> str:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else "(not set)"
    if isinstance(value, list):
        return (
            ", ".join("********" if isinstance(v, SecretStr) else masked_url(str(v)) for v in value)
            or "(none)"
        )
    if isinstance(value, timedelta):
        return duration_text(value)
    if key == "database_url" and "://" not in value:
        return "(not a database address)"
    return masked_url(str(value)) or "(empty)"
