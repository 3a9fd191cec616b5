"""The settings: those of the publication can be changed, those of the machine are shown."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import UserError
from newsletter.operations import settings as operations
from newsletter.operations.settings import SettingsChangeError, as_text
from newsletter.settings import publication
from newsletter.settings.publication import Change, Value
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts, PostedFields
from newsletter.web.sentences import sentence

router = APIRouter()
_Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_Owner = Annotated[Visitor, Depends(role(Role.OWNER))]
_PATH: Final = "/console/settings"
#: The number of changes shown.
_HISTORY: Final = 50
_MOST: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SettingField:
    """How the form shows a setting."""

    key: str
    label: str
    about: str = ""
    kind: str = "text"
    required: bool = True

    @property
    def name(self) -> str:
        """The name of the form's field."""
        return _name(self.key)


def _name(key: str) -> str:
    return key.replace(".", "_")


#: The fields of each part of the form: all of ``publication.KEYS``.
FIELDS: Final[Mapping[str, tuple[SettingField, ...]]] = {
    "Publication": (
        SettingField("site.name", "Name", "In headers and footers of emails and pages"),
        SettingField(
            "site.postal_address", "Postal address", "Most countries require it in every email"
        ),
        SettingField(
            "site.language", "Language", "Of emails and pages that name none, like en or de"
        ),
        SettingField(
            "site.timezone",
            "Time zone",
            "Like Europe/Berlin. It bounds the days of daily limits, and applies to subscribers "
            "without one",
        ),
        SettingField(
            "site.logo_url",
            "Logo",
            "An https address of a picture above each issue. Empty: none",
            required=False,
        ),
    ),
    "Sender": (
        SettingField("sender.name", "Sender name", "The name beside the From address"),
        SettingField(
            "sender.email",
            "Sender email",
            "The From address, unless an issue names another one. SendGrid must have verified it",
        ),
        SettingField(
            "sender.reply_to",
            "Reply-to email",
            "Where answers go. Empty: to the From address",
            required=False,
        ),
    ),
    "Tracking and sending": (
        SettingField("tracking.clicks", "Track clicks", "Unless an issue or a send says otherwise"),
        SettingField("tracking.opens", "Track opens", "Unless an issue or a send says otherwise"),
        SettingField(
            "sending.quiet_hours",
            "Quiet hours",
            "For new sends, like 22:00-07:00 in each recipient's local time. Empty: none",
            required=False,
        ),
        SettingField(
            "signup.double_opt_in",
            "Double opt-in",
            "Who signs up confirms by email. Switch it off only where the law allows that",
        ),
    ),
}
_LABELS: Final = {field.key: field.label for fields in FIELDS.values() for field in fields}

_Text = Annotated[str | None, Form(max_length=2000)]


@dataclass(frozen=True, slots=True)
class SettingsForm:
    """What was typed; None for fields that were empty, or that the form did not have."""

    site_name: _Text = None
    site_postal_address: _Text = None
    site_language: _Text = None
    site_timezone: _Text = None
    site_logo_url: _Text = None
    sender_name: _Text = None
    sender_email: _Text = None
    sender_reply_to: _Text = None
    tracking_clicks: _Text = None
    tracking_opens: _Text = None
    sending_quiet_hours: _Text = None
    signup_double_opt_in: _Text = None

    def values(self, posted: Collection[str]) -> dict[str, str]:
        """What was typed into the fields that were posted, by the keys of the settings."""
        typed = asdict(self)
        names = {key: _name(key) for key in publication.KEYS}
        return {key: typed[name] or "" for key, name in names.items() if name in posted}


_Version = Annotated[int, Form(ge=0, le=_MOST)]


@router.api_route(_PATH, methods=["GET", "HEAD"])
def show(request: Request, parts: Parts, visitor: _Viewer, done: str = "") -> Response:
    """All settings, and the history of those of the publication."""
    return _show(request, parts, visitor, done=done)


@router.post(_PATH)
def save(
    request: Request,
    parts: Parts,
    visitor: _Owner,
    *,
    form: Annotated[SettingsForm, Depends()],
    posted: PostedFields,
    version: _Version = 0,
) -> Response:
    """Save what differs from the version that the form was made from."""
    return _change(request, parts, visitor, form.values(posted), version)


@router.post(f"{_PATH}/unset")
def unset(
    request: Request,
    parts: Parts,
    visitor: _Owner,
    key: Annotated[str, Form(max_length=60)] = "",
    version: _Version = 0,
) -> Response:
    """Remove a setting, so that its default applies again."""
    return _change(request, parts, visitor, {key: None}, version)


def _change(
    request: Request,
    parts: Container,
    visitor: Visitor,
    values: Mapping[str, Value | None],
    version: int,
) -> Response:
    try:
        with transaction(parts.database) as session:
            changed = operations.change(
                session,
                parts,
                values,
                by=actor(request, visitor),
                now=datetime.now(UTC),
                base=version,
            )
    except SettingsChangeError as error:
        return _show(request, parts, visitor, problem=error, typed=values, version=version)
    parts.current_settings.forget()
    return go(f"{_PATH}?done={'saved' if changed else 'same'}")


def _show(
    request: Request,
    parts: Container,
    visitor: Visitor,
    *,
    done: str = "",
    problem: SettingsChangeError | None = None,
    typed: Mapping[str, Value | None] | None = None,
    version: int = 0,
) -> Response:
    with reading(parts.database) as session:
        changes = publication.latest(session)
        history = publication.history(session, limit=_HISTORY)
    newest = max((change.id for change in changes.values()), default=0)
    settings = publication.applied(parts.loaded, changes)
    values: dict[str, Value] = {key: publication.value_of(settings, key) for key in _LABELS}
    for key in problem.touched if problem else ():
        if key in values and (text := (typed or {}).get(key)) is not None:
            values[key] = text
    return page(
        request,
        "settings.html",
        status=200 if problem is None else 400 if problem.problems else 409,
        fields=FIELDS,
        labels=_LABELS,
        values={key: _typed(value) for key, value in values.items()},
        kinds={key: isinstance(publication.value_of(settings, key), bool) for key in _LABELS},
        changes={key: one for key, one in changes.items() if one.value is not None},
        explicit={key: source for key in _LABELS if (source := parts.loaded.explicit_source(key))},
        mistakes=mistakes_of(problem, typed or {}),
        machine=[
            one
            for one in publication.all_origins(parts.loaded, changes)
            if one.key not in publication.KEYS
        ],
        history=[(one, _shown(one)) for one in history],
        # With a wrong value, the next post is still compared with what its author has seen.
        version=version if problem is not None and problem.problems else newest,
        may_edit=visitor.role.covers(Role.OWNER),
        done=done,
        problem=problem,
    )


def _typed(value: Value) -> str:
    """A value as the form's field has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


def _shown(change: Change) -> str:
    return (
        "Default"
        if change.value is None
        else as_text(change.value).capitalize()
        if isinstance(change.value, bool)
        else change.value or "Empty"
    )


def mistakes_of(
    problem: SettingsChangeError | None, typed: Mapping[str, Value | None]
) -> dict[str, str]:
    """What stands beside the fields, by their keys."""
    if problem is None:
        return {}
    found = {key: explanation(error) for key, error in problem.problems.items()}
    for key, other in problem.conflicts.items():
        yours = typed.get(key)
        wish = f"you wrote {as_text(yours)}" if yours is not None else "you chose the default"
        found.setdefault(
            key,
            f"{other.by} changed this to {as_text(other.theirs)} while you were editing, and "
            f"{wish}. Save again to use yours, or type the other value.",
        )
    return found


def explanation(error: UserError) -> str:
    """The message and the hint of an error, as sentences."""
    text = sentence(error.message)
    return f"{text} {error.hint}" if error.hint else text
