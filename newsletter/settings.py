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
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from newsletter.errors import SettingsError
from newsletter.setting_kinds import (
    Day,
    Duration,
    Kept,
    Key,
    Line,
    Listed,
    Mailbox,
    Period,
    Port,
    WebAddress,
    Zone,
    duration_text,
)

_PREFIX = "NEWSLETTER_"
#: Names the operator's file, so it is not itself a setting.
_FILE_VARIABLE = "NEWSLETTER_CONFIG"


def resource(name: str) -> Path:
    """A folder of files for operators (``templates/email``), in the repository or the wheel."""
    packed = Path(__file__).parent / f"_{name}"
    return packed if packed.is_dir() else Path(__file__).parent.parent / name


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(_Section):
    """What the publication is called and where it is reached."""

    name: Line
    base_url: WebAddress
    postal_address: Line
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
    timezone: Zone
    logo_url: Annotated[str, Field(pattern=r"^(https://\S+)?$")]


class Sender(_Section):
    """From whom mails come."""

    email: Mailbox
    name: Line
    reply_to: Mailbox


class SendGrid(_Section):
    """How the provider is reached, and how its events are told from forgeries."""

    host: WebAddress
    api_key: SecretStr
    timeout: Duration
    webhook_public_keys: Annotated[list[str], Listed]
    webhook_max_age: Duration


class LinkKeys(_Section):
    """Keys of the links in mails."""

    keys: Annotated[list[Key], Listed]


class Audience(_Section):
    """What the audience is kept with."""

    address_key: Key


class Inbound(_Section):
    """How mail to us comes in: SendGrid's Inbound Parse posts it to a secret URL."""

    address: Mailbox
    key: Key


class Signup(_Section):
    """How people come in, and what keeps abusers out."""

    origins: Annotated[list[WebAddress], Listed]
    double_opt_in: bool
    confirm_within: Duration
    wording: Line
    fill_time: Duration
    per_ip: Annotated[int, Field(ge=1)]
    per_address: Annotated[int, Field(ge=1)]
    challenge: Literal["none", "altcha"]
    refuse_disposable: bool
    check_mx: bool
    keep_ip: Duration


class Review(_Section):
    """Who has to have read an issue before it is sent."""

    required: bool
    second_person: bool


class Checks(_Section):
    """What is looked at before an issue is sent."""

    file: str


class PublicArchive(_Section):
    """Sent issues on the web, for everybody."""

    enabled: bool


class Sending(_Section):
    """Size and pace of requests, and what happens in doubt."""

    batch_size: Annotated[int, Field(ge=1, le=1000)]
    concurrency: Annotated[int, Field(ge=1, le=64)]
    late_limit: Duration
    doubt_grace: Duration
    doubt_policy: Literal["hold", "resend"]
    retry_for: Duration
    journal: str
    quiet_hours: str
    warm_up: Annotated[list[Annotated[int, Field(ge=0)]], Listed]
    warm_up_from: Day
    alerts: str


class Tracking(_Section):
    """What events come to, and how our suppressions and the provider's are kept the same."""

    soft_bounces: Annotated[int, Field(ge=1)]
    soft_bounce_days: Duration
    scanner_links: Annotated[int, Field(ge=2)]
    scanner_seconds: Duration
    reconcile_every: Period
    push_suppressions: bool
    keep_events: Kept
    keep_deliveries: Kept


class Console(_Section):
    """Who gets into the operators' pages, and for how long."""

    idle_time: Duration
    absolute_time: Duration
    require_second_factor: bool
    max_owners: Annotated[int, Field(ge=1)]
    reset_within: Duration
    invite_within: Duration
    per_account: Annotated[int, Field(ge=1)]
    per_network: Annotated[int, Field(ge=1)]
    hash_memory: Annotated[int, Field(ge=8, le=4_194_304)]
    hash_rounds: Annotated[int, Field(ge=1, le=100)]


class Web(_Section):
    """Where the service listens."""

    host: str
    port: Port


class Templates(_Section):
    """Where the email templates are."""

    directory: str


class Settings(_Section):
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
            ", ".join("********" if isinstance(v, SecretStr) else str(v) for v in value) or "(none)"
        )
    if isinstance(value, timedelta):
        return duration_text(value)
    if key == "database_url":
        try:
            return make_url(value).render_as_string(hide_password=True)
        except ArgumentError:
            return "(not a database address)"
    return str(value) or "(empty)"
