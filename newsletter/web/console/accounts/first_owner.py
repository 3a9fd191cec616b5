"""The first visit: a link that `newsletter serve` prints makes the owner and names the sender."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts.models import SignInStage
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import LinkError
from newsletter.operations import first_owner
from newsletter.operations.first_owner import FirstVisit, FirstVisitError
from newsletter.settings import publication
from newsletter.web.console.accounts.sign_in import begin_after_password
from newsletter.web.console.base import session_cookie
from newsletter.web.console.base.layout import go, page
from newsletter.web.console.base.permissions import STEPS, anybody
from newsletter.web.console.publication.settings_page import FIELDS, explanation, mistakes_of
from newsletter.web.dependencies import Parts, PostedFields
from newsletter.web.visitor import network_address

router = APIRouter(dependencies=[Depends(anybody)])

#: The fields of the settings, as on the page Settings.
_SETTINGS: Final = {
    title: [field for field in fields if field.key in first_owner.KEYS]
    for title, fields in FIELDS.items()
    if any(field.key in first_owner.KEYS for field in fields)
}
_LABELS: Final = {
    "email": "Email address",
    "password": "Password",
    "again": "Repeat password",
    **{field.key: field.label for fields in _SETTINGS.values() for field in fields},
}
_MOST: Final = 1_000_000_000
_Text = Annotated[str, Form()]


@dataclass(frozen=True, slots=True)
class SetupForm:
    """What was typed."""

    email: _Text = ""
    name: _Text = ""
    password: _Text = ""
    again: _Text = ""
    site_name: _Text = ""
    site_postal_address: _Text = ""
    sender_name: _Text = ""
    sender_email: _Text = ""
    version: Annotated[int, Form(ge=0, le=_MOST)] = 0

    def first_visit(self, posted: Collection[str], fixed: Collection[str]) -> FirstVisit:
        """The same for the operation, without settings that the form did not have, or that are
        ``fixed`` on this machine."""
        typed = asdict(self)
        settings = {
            field.key: typed[field.name].strip()
            for fields in _SETTINGS.values()
            for field in fields
            if field.name in posted and field.key not in fixed
        }
        email, name = self.email.strip()[:321], self.name[:200]
        return FirstVisit(email, name, self.password, self.again, settings, self.version)


@router.api_route("/console/setup/{token}", methods=["GET", "HEAD"])
def show_form(token: str, request: Request, parts: Parts) -> Response:
    """The form. Changes nothing."""
    try:
        with reading(parts.database) as session:
            first_owner.require_open(session, parts, token, now=datetime.now(UTC))
    except LinkError:
        return _over(request)
    return _show(request, parts, token)


@router.post("/console/setup/{token}")
def create(
    token: str,
    request: Request,
    parts: Parts,
    form: Annotated[SetupForm, Depends()],
    posted: PostedFields,
) -> Response:
    """Make the owner and sign them in. No transaction is open while the password is hashed."""
    now = datetime.now(UTC)
    typed = form.first_visit(posted, _fixed(parts))
    try:
        with reading(parts.database) as session:
            first_owner.check(session, parts, token, typed, now=now)
        hashed = parts.passwords.hashed(typed.password)
        with transaction(parts.database) as session:
            user = first_owner.create(
                session,
                parts,
                token,
                typed,
                hashed_password=hashed,
                ip=network_address(request) or "",
                now=now,
            )
            stage, cookie = begin_after_password(session, request, parts, user.id)
    except LinkError:
        return _over(request)
    except FirstVisitError as error:
        return _show(request, parts, token, typed=typed, problem=error)
    parts.current_settings.forget()
    answer = go("/console/" if stage is SignInStage.FULL else STEPS[stage])
    session_cookie.set_token(answer, cookie, parts.settings.site.base_url)
    return answer


def _fixed(parts: Container) -> dict[str, str]:
    """The settings that a file or the environment sets, with their sources."""
    sources = {key: parts.loaded.explicit_source(key) for key in first_owner.KEYS}
    return {key: source for key, source in sources.items() if source}


def _show(
    request: Request,
    parts: Container,
    token: str,
    *,
    typed: FirstVisit | None = None,
    problem: FirstVisitError | None = None,
) -> Response:
    with reading(parts.database) as session:
        changes = publication.latest(session)
    settings = publication.applied(parts.loaded, changes)
    values = {key: publication.value_of(settings, key) for key in first_owner.KEYS}
    mistakes = {}
    if typed is not None and problem is not None:
        values |= typed.settings
        mistakes = {key: explanation(error) for key, error in problem.problems.items()}
        mistakes |= mistakes_of(problem.settings, typed.settings)
    # With a wrong value, the next post is still compared with what its author has seen.
    keeps = problem is not None and (problem.problems or problem.settings is None)
    newest = max((change.id for change in changes.values()), default=0)
    return page(
        request,
        "setup.html",
        status=400 if problem else 200,
        key=token,
        email=typed.email[:320] if typed else "",
        called=typed.name if typed else "",
        fields=_SETTINGS,
        labels=_LABELS,
        values=values,
        explicit=_fixed(parts),
        mistakes={key: mistakes[key] for key in _LABELS if key in mistakes},
        version=typed.version if typed and keeps else newest,
    )


def _over(request: Request) -> Response:
    return page(request, "setup_over.html", status=410)
