"""Loads the settings from config/default.toml, the operator's files and the environment.

Later sources override earlier ones, and each value records its source. An unknown key or an
invalid value raises SettingsError, which names the source and what is allowed.

The operator's files are `newsletter.toml` and `.env` in the working directory. NEWSLETTER_CONFIG
names another TOML file, whose folder then has the `.env`; if it is set but empty, no file is read.
In the working directory, only files of this user and of root are read.

The table [initial] of the TOML file has settings of the publication with which its database
begins. Only the defaults yield to them, so that owners can change them in the console.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    PrivateAttr,
    SecretStr,
    ValidationError,
)

from newsletter import durations
from newsletter.errors import SettingsError
from newsletter.settings import env_file, secret_files
from newsletter.settings.kinds import DatabaseAddress, masked_url
from newsletter.settings.sections import (
    PUBLICATION_KEYS,
    AudienceSection,
    Backups,
    Checks,
    Console,
    Imports,
    Inbound,
    LinkKeys,
    Logging,
    Metrics,
    PublicArchive,
    ReviewSection,
    Section,
    Sender,
    SendGrid,
    Sending,
    SignupSection,
    Site,
    Templates,
    Tracking,
    Web,
    Webhooks,
)

_PREFIX = "NEWSLETTER_"
#: The environment variable that names the operator's file.
FILE_VARIABLE = "NEWSLETTER_CONFIG"
#: The operator's file in the working directory.
FILE = "newsletter.toml"
_DEFAULT = "default.toml"
#: The table of the operator's file with the publication's initial settings.
INITIAL = "initial"
_MOST_BYTES = 1_000_000
_TOML = "It has to be a TOML file like config/production.example.toml."
#: How a value is written, by the type of pydantic's error.
_HINTS = {
    "string": 'Write it in quotes: "…".',
    "bool": "Write true or false.",
    "int": "Write a whole number, without quotes.",
    "list": 'Write a list: ["one", "two"].',
}


def resource(name: str) -> Path:
    """The path of a folder such as ``templates/email``, in the repository or the wheel."""
    packed = Path(__file__).parents[1] / f"_{name}"
    return packed if packed.is_dir() else Path(__file__).parents[2] / name


class Settings(Section):
    """All settings."""

    database_url: DatabaseAddress
    site: Site
    sender: Sender
    sendgrid: SendGrid
    links: LinkKeys
    subscribers: AudienceSection
    inbound: Inbound
    signup: SignupSection
    review: ReviewSection
    checks: Checks
    archive: PublicArchive
    sending: Sending
    tracking: Tracking
    console: Console
    imports: Imports
    backup: Backups
    web: Web
    metrics: Metrics
    webhooks: Webhooks
    logging: Logging
    templates: Templates

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _initial: frozenset[str] = PrivateAttr(default_factory=frozenset)

    @property
    def sources(self) -> Mapping[str, str]:
        """The source of each setting by its dotted key, in the order of default.toml."""
        return self._sources

    def explicit_source(self, key: str) -> str | None:
        """The file or environment variable that sets it; None for a default or initial value."""
        source = self._sources.get(key, _DEFAULT)
        return None if source == _DEFAULT or key in self._initial else source

    @property
    def initial(self) -> frozenset[str]:
        """The keys of the publication's initial settings that nothing else sets."""
        return self._initial

    def with_sources(self, sources: dict[str, str], initial: frozenset[str]) -> "Settings":
        """The same settings with their sources, and which of them are initial ones."""
        result = self.model_copy()
        result._sources, result._initial = sources, initial
        return result

    @property
    def templates_directory(self) -> Path:
        """The operator's templates, or the built-in ones."""
        chosen = self.templates.directory
        return Path(chosen) if chosen else resource("templates/email")


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting: its dotted key, the text to show (secrets masked), and its source."""

    key: str
    shown: str
    source: str


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Load the settings; SettingsError names the source, the key and what is allowed.

    With ``environ``, only this mapping counts, and the working directory has no files.
    """
    look, environ = environ is None, os.environ if environ is None else environ
    file = _operators_file(environ, look=look)
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    initial: set[str] = set()
    for source, values in (
        (_DEFAULT, _built_in()),
        *([] if file is None else _from_files(file)),
        *_from_variables({name: (name, value) for name, value in environ.items()}),
    ):
        for path, value in _leaves(values):
            is_initial = path[0] == INITIAL
            key = path[1:] if is_initial else path
            place = f"{source} [{INITIAL}]" if is_initial else source
            if is_initial:
                _require_of_publication(key, place)
            _require_known(key, place)
            dotted = ".".join(key)
            if not is_initial:
                initial.discard(dotted)
            elif dotted in initial or sources.get(dotted) == _DEFAULT:
                initial.add(dotted)
            else:
                continue
            _put(merged, key, value)
            sources[dotted] = place
    try:
        return Settings.model_validate(merged).with_sources(sources, frozenset(initial))
    except ValidationError as error:
        raise _explained(error, sources) from None


def load_with_origins(environ: Mapping[str, str] | None = None) -> tuple[Settings, list[Origin]]:
    """The settings and the source of each, in the order of default.toml."""
    settings = load(environ)
    return settings, origins(settings)


def origins(settings: Settings) -> list[Origin]:
    """Each setting as it is shown, and its source."""
    return [Origin(key, _masked(settings, key), source) for key, source in settings.sources.items()]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise SettingsError(
                f"the file is longer than {_MOST_BYTES:,} bytes", place=str(path), hint=_TOML
            )
        return tomllib.loads(raw.decode())
    except FileNotFoundError:
        raise SettingsError(
            "there is no such file", place=str(path), hint=f"{FILE_VARIABLE} names it."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"cannot be read: {error.strerror}", place=str(path), hint=f"{FILE_VARIABLE} names it."
        ) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or not a path
        said = "nested too deeply" if isinstance(error, RecursionError) else error
        raise SettingsError(
            f"cannot be read as TOML: {said}", place=str(path), hint=_TOML
        ) from None


@cache
def _built_in() -> dict[str, Any]:
    return _read(resource("config") / _DEFAULT)


def _operators_file(environ: Mapping[str, str], *, look: bool) -> Path | None:
    """The path of the operator's file, which need not exist in the working directory."""
    name = environ.get(FILE_VARIABLE)
    if name is None and look:
        _require_own()
        return Path(FILE)
    return Path(name) if name else None


def _require_own() -> None:
    """Raise SettingsError if another user made a file here, as may happen in /tmp.

    Such a file could send the keys of the environment elsewhere.
    """
    for path in (Path(FILE), Path(env_file.NAME)):
        try:
            owner = path.stat().st_uid
        except OSError:
            continue
        if owner not in {os.geteuid(), 0}:
            raise SettingsError(
                "belongs to another user, so it is not read",
                place=str(path),
                hint=f"If you trust it, set {FILE_VARIABLE}={FILE}; to read no file, leave that "
                "variable empty.",
            )


def _from_files(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The values of the operator's file, and of the `.env` beside it."""
    # A file in the working directory is no duty; one that NEWSLETTER_CONFIG names is.
    if file != Path(FILE) or os.path.lexists(file):
        yield str(file), _read(file)
    beside = file.parent / env_file.NAME
    yield from _from_variables(
        {name: (place, value) for place, name, value in env_file.lines(beside, _PREFIX)}
    )


def _from_variables(
    variables: Mapping[str, tuple[str, str]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The values of variables, which are given as name → place and value."""
    known = {name: found for name, found in variables.items() if name.startswith(_PREFIX)}
    for name, (place, value) in sorted(secret_files.resolved(known, _PREFIX).items()):
        if name == FILE_VARIABLE:
            if place != name:
                raise SettingsError(
                    f"{name} does not belong into this file", place=place, hint="Delete the line."
                )
            continue
        nested: dict[str, Any] = {}
        _put(nested, name.removeprefix(_PREFIX).lower().split("__"), value)
        yield place, nested


def _leaves(
    values: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and (value or not above):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _require_known(key: tuple[str, ...], source: str) -> None:
    """Raise SettingsError unless the key names a setting, not a section or a part of a setting."""
    place = f"{source}: {'.'.join(key)}"
    model: type[BaseModel] | None = Settings
    for number, part in enumerate(key):
        if model is None:
            raise SettingsError(
                "this setting has no keys of its own",
                place=f"{source}: {'.'.join(key[:number])}",
                hint="Write its value right after the equals sign.",
            )
        field = model.model_fields.get(part)
        if field is None:
            raise SettingsError(
                "there is no such setting",
                place=place,
                hint=f"Known here: {', '.join(sorted(model.model_fields))}.",
            )
        kind = field.annotation
        model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    if model is not None:
        raise SettingsError(
            "this is a section, not a setting",
            place=place,
            hint=f"Known in it: {', '.join(sorted(model.model_fields))}.",
        )


def _require_of_publication(key: tuple[str, ...], source: str) -> None:
    dotted = ".".join(key)
    if not any(f"{one}.".startswith(f"{dotted}.") for one in PUBLICATION_KEYS):
        raise SettingsError(
            "only settings of the publication have an initial value",
            place=f"{source}: {dotted}",
            hint=f"These are: {', '.join(PUBLICATION_KEYS)}.",
        )


def _put(into: dict[str, Any], key: Sequence[str], value: object) -> None:
    for part in key[:-1]:
        into = into.setdefault(part, {})
    into[key[-1]] = value


def _explained(error: ValidationError, sources: Mapping[str, str]) -> SettingsError:
    """The first validation error as a message for the operator."""
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    if key not in sources:
        # The error is about a section: prefer a setting in the message that the operator has set.
        named = [one for word in message.split() if (one := f"{key}.{word}") in sources]
        written = [one for one in named if sources[one] != _DEFAULT]
        key = next(iter([*written, *named]), key)
    hint = _HINTS.get(first["type"].partition("_")[0], "")
    built_in: Any = _built_in()
    for part in key.split("."):
        built_in = built_in.get(part, "") if isinstance(built_in, dict) else ""
    said = json.dumps(built_in) if built_in not in ("", []) else "empty"
    return SettingsError(
        message[0].lower() + message[1:],
        place=f"{sources.get(key, _DEFAULT)}: {key}",
        hint=f"{hint} The default is {said}. See config/{_DEFAULT}.".strip(),
    )


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
        return durations.written(value)
    if value is None:
        return "(empty)"
    if key == "database_url" and "://" not in value:
        return "(not a database address)"
    return masked_url(str(value)) or "(empty)"
