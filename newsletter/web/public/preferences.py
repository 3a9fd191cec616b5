"""The preference center, linked from every email: plain forms, no script.

Topics, pause and language are saved immediately. A new address, a download and an erasure are
confirmed with a link in another email (``newsletter.web.public.confirmed_requests``), because a
forwarded email contains the link to this page. For the same reason the page masks the address.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import UserError
from newsletter.links import Purpose
from newsletter.sending.delivery import outbox
from newsletter.web.dependencies import Parts, page
from newsletter.web.public import request_emails
from subscribers import rate_limit
from subscribers.email_address import hash_address, parse
from subscribers.field_values import LANGUAGE_TAG, MAX_LANGUAGE
from subscribers.self_service import confirmed_requests, preferences
from subscribers.self_service.confirmed_requests import (
    RequestKind,
    RequestResult,
    TooManyRequestsError,
)
from subscribers.self_service.preferences import (
    ChangedTooOftenError,
    PreferenceChoice,
    PreferenceError,
    Preferences,
)
from subscribers.signup.mailboxes import mailbox_of

router = APIRouter()

#: Languages to choose from, each by its own name; a subscriber's other language is kept.
LANGUAGES: Final = {
    "da": "Dansk",
    "de": "Deutsch",
    "en": "English",
    "es": "Español",
    "fr": "Français",
    "it": "Italiano",
    "nl": "Nederlands",
    "pl": "Polski",
    "pt": "Português",
    "sv": "Svenska",
}
_WEEKS = (1, 2, 3, 4, 6, 8, 12, 26)
#: How long the link in the confirmation email works.
_WITHIN = {
    RequestKind.ADDRESS: timedelta(days=7),
    RequestKind.DATA: timedelta(days=1),
    RequestKind.ERASE: timedelta(days=1),
}


@dataclass(frozen=True, slots=True)
class _Form:
    """What the page shows besides the preferences."""

    email: str
    paused_until: str | None
    languages: dict[str, str]
    weeks: tuple[int, ...] = _WEEKS


@router.head("/preferences/{token}", include_in_schema=False)
@router.get("/preferences/{token}")
def show(token: str, request: Request, parts: Parts) -> Response:
    """The form with the current preferences. Changes nothing."""
    return _show(request, parts, token, saved="saved" in request.query_params)


@router.post("/preferences/{token}")
def save(
    token: str,
    request: Request,
    parts: Parts,
    *,
    topic: Annotated[list[str] | None, Form()] = None,
    pause: Annotated[str, Form()] = "",
    language: Annotated[str, Form()] = "",
) -> Response:
    """Save the form, then redirect to it, so that a reload does not save it again."""
    subscriber_id = _person(parts, token)
    try:
        choice = PreferenceChoice(frozenset(topic or ()), _language(language), _weeks(pause))
        with transaction(parts.database) as session:
            found = preferences.save(session, subscriber_id, choice, now=datetime.now(UTC))
    except PreferenceError as error:
        return _show(request, parts, token, problem=error)
    if not found:
        return _show(request, parts, token)
    return RedirectResponse(f"/preferences/{token}?saved", status_code=303)


@router.post("/preferences/{token}/address")
def ask_address(
    token: str, request: Request, parts: Parts, email: Annotated[str, Form()] = ""
) -> Response:
    """Send a confirmation email to the new address and a warning to the old one."""

    def write_down(session: Session, person: int, now: datetime) -> RequestResult | None:
        address = parse(email)
        hashed = hash_address(parts.address_key, address)
        expires = now + _WITHIN[RequestKind.ADDRESS]
        mailbox = mailbox_of(address)
        key = rate_limit.key_of(parts.address_key, rate_limit.SINGLE_MAILS, mailbox)
        return confirmed_requests.request_address_change(
            session, person, address, hashed, mailbox_key=key, now=now, expires=expires
        )

    return _ask(request, parts, token, RequestKind.ADDRESS, write_down)


@router.post("/preferences/{token}/data")
def ask_data(token: str, request: Request, parts: Parts) -> Response:
    """Send an email with a link to download the subscriber's data."""
    return _ask(request, parts, token, RequestKind.DATA, _by_own_mail(RequestKind.DATA))


@router.post("/preferences/{token}/erase")
def ask_erase(token: str, request: Request, parts: Parts) -> Response:
    """Send an email with a link to erase the subscriber."""
    return _ask(request, parts, token, RequestKind.ERASE, _by_own_mail(RequestKind.ERASE))


_WriteDown = Callable[[Session, int, datetime], RequestResult | None]


def _by_own_mail(kind: RequestKind) -> _WriteDown:
    def write_down(session: Session, person: int, now: datetime) -> RequestResult | None:
        return confirmed_requests.request(
            session, person, kind, now=now, expires=now + _WITHIN[kind]
        )

    return write_down


def _ask(
    request: Request, parts: Container, token: str, kind: RequestKind, write_down: _WriteDown
) -> Response:
    subscriber_id, now = _person(parts, token), datetime.now(UTC)
    try:
        with transaction(parts.database) as session:
            asked = write_down(session, subscriber_id, now)
            if asked is not None and not asked.repeated:
                _send(session, parts, kind, asked, now)
    except UserError as error:
        return _show(request, parts, token, problem=error)
    if asked is None:
        return _show(request, parts, token)
    email = asked.email if kind is RequestKind.ADDRESS else masked(asked.email)
    return page(request, "request_sent.html", kind=kind, email=email, token=token)


def _send(
    session: Session, parts: Container, kind: RequestKind, asked: RequestResult, now: datetime
) -> None:
    """Renders both emails even if they are not sent, so that the response time reveals nothing."""
    mails = request_emails.written(
        parts, kind, asked, expires=now + _WITHIN[kind], take_back=confirmed_requests.UNDO_PERIOD
    )
    if asked.send:
        outbox.enqueue(session, kind=kind, email=asked.email, mail=mails.ask, now=now)
    if mails.warn:
        outbox.enqueue(session, kind="warn", email=asked.current, mail=mails.warn, now=now)


def _show(
    request: Request,
    parts: Container,
    token: str,
    *,
    saved: bool = False,
    problem: UserError | None = None,
) -> Response:
    subscriber_id, now = _person(parts, token), datetime.now(UTC)
    with reading(parts.database) as session:
        so_far = preferences.view(session, subscriber_id, now=now)
    if so_far is None:
        return page(request, "preferences_gone.html", status=410)
    often = isinstance(problem, TooManyRequestsError | ChangedTooOftenError)
    status = 429 if often else 400 if problem else 200
    return page(
        request,
        "preferences.html",
        status=status,
        token=token,
        person=so_far,
        form=_form(so_far),
        saved=saved,
        problem=problem,
    )


def _form(so_far: Preferences) -> _Form:
    languages = dict(LANGUAGES)
    if so_far.language:
        languages.setdefault(so_far.language, so_far.language)
    paused = so_far.paused_until
    return _Form(masked(so_far.email), day(paused) if paused else None, languages)


def _person(parts: Container, token: str) -> int:
    _issue_id, subscriber_id = parts.links.read(token, Purpose.RECIPIENT).numbers
    return subscriber_id


def _weeks(pause: str) -> int | None:
    """Weeks of pause; PreferenceError for a value that the form does not offer."""
    if pause == "keep":
        return None
    if not re.fullmatch(r"[0-9]{1,2}", pause):
        raise PreferenceError("the form was incomplete", hint="Nothing was saved. Try again.")
    return int(pause)


def _language(tag: str) -> str | None:
    if tag and (len(tag) > MAX_LANGUAGE or not LANGUAGE_TAG.fullmatch(tag)):
        raise PreferenceError("unknown language", hint="Choose one from the list.")
    return tag or None


def masked(email: str) -> str:
    """``j…@example.com``: its owner recognizes it, nobody else can use it."""
    local, _, domain = email.rpartition("@")
    return f"{local[:1]}…@{domain}"


def day(moment: datetime) -> str:
    """``24 Apr 2026``: short enough for a narrow list."""
    return f"{moment.day} {moment:%b %Y}"
