"""Signs users in: a password, then a code if the user has an app, with a new token at each step.

Neither the answer nor its time shows whether an address has an account: a password is compared and
an entry written in any case.
"""

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from newsletter.accounts import audit, sessions, sign_in_throttle, two_factor, users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import SignInStage
from newsletter.accounts.sessions import Visitor
from newsletter.accounts.users import Credentials
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.web.console.base import session_cookie
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import STEPS, anybody, at_stage
from newsletter.web.dependencies import Parts
from newsletter.web.visitor import browser, network_address

router = APIRouter()

_WRONG = "Wrong email address or password."
_WRONG_CODE = "Wrong code, or already used. Your app shows a new code every 30 seconds."
_TOO_OFTEN = "Too many attempts. Try again in 15 minutes."
_LATER = {"Retry-After": str(int(sign_in_throttle.WINDOW.total_seconds()))}
_CodeStage = Annotated[Visitor, Depends(at_stage(SignInStage.CODE))]
_Next = Annotated[str, Query(alias="next")]
_Sent = Annotated[str, Form(alias="next")]


@router.api_route("/console/sign-in", methods=["GET", "HEAD"])
def show_form(
    request: Request, visitor: Annotated[Visitor | None, Depends(anybody)], following: _Next = ""
) -> Response:
    """The form; redirects a user who is signed in."""
    if visitor is not None and visitor.stage is SignInStage.FULL:
        return go(session_cookie.safe_next(following))
    return page(request, "sign_in.html", following=session_cookie.safe_next(following))


@router.post("/console/sign-in", dependencies=[Depends(anybody)])
def sign_in(
    request: Request,
    parts: Parts,
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    following: _Sent = "",
) -> Response:
    """Check the password. No transaction is open during this, because it takes 0.1 seconds."""
    if not _may_try(request, parts, email):
        return _show_again(request, email, following, _TOO_OFTEN, status=429)
    with reading(parts.database) as session:
        known = users.credentials(session, email)
    fits = parts.passwords.fits(known.hashed if known else "", password)
    if known is None or not fits:
        _record_refusal(request, parts, known)
        return _show_again(request, email, following, _WRONG, status=400)
    rehashed = parts.passwords.outdated(known.hashed) and parts.passwords.hashed(password)
    with transaction(parts.database) as session:
        if not users.still(session, known):
            return _show_again(request, email, following, _WRONG, status=400)
        if rehashed:
            users.rehash(session, known, rehashed)
        stage, token = begin_after_password(session, request, parts, known.user_id)
        if stage is not SignInStage.CODE:
            who = Actor(known.user_id, known.email, _ip(request))
            audit.record(session, who, "signed in", now=datetime.now(UTC))
    following = session_cookie.safe_next(following)
    if stage is SignInStage.FULL:
        answer = go(following)
    elif stage is SignInStage.ENROL:
        answer = go(STEPS[stage])
    else:
        answer = go(f"{STEPS[stage]}?next={quote(following, safe='')}")
    session_cookie.set_token(answer, token, parts.settings.site.base_url)
    return answer


@router.api_route("/console/sign-in/code", methods=["GET", "HEAD"])
def show_code_form(request: Request, _visitor: _CodeStage, following: _Next = "") -> Response:
    """The form for a code of the app or a recovery code."""
    return page(request, "sign_in_code.html", following=session_cookie.safe_next(following))


@router.post("/console/sign-in/code")
def enter_code(
    request: Request,
    parts: Parts,
    visitor: _CodeStage,
    code: Annotated[str, Form()] = "",
    following: _Sent = "",
) -> Response:
    """Sign in with a code, which cannot be used again."""
    now, following = datetime.now(UTC), session_cookie.safe_next(following)
    recovery = two_factor.looks_like_recovery_code(code)
    with transaction(parts.database) as session:
        may = sign_in_throttle.may_try_code(
            session, parts.address_key, user_id=visitor.user_id, now=now, recovery=recovery
        )
    if not may:
        answer = page(
            request, "sign_in_code.html", status=429, following=following, problem=_TOO_OFTEN
        )
        answer.headers.update(_LATER)
        return answer
    with transaction(parts.database) as session:
        # Codes and recovery codes have separate limits, so attempts count only for one kind.
        by_app = not recovery and two_factor.check(session, visitor.user_id, code, now=now)
        fits = by_app or (
            recovery and two_factor.use_recovery_code(session, visitor.user_id, code, now=now)
        )
        how = "app" if by_app else "recovery code"
        token = _begin(session, request, parts, visitor.user_id, SignInStage.FULL) if fits else ""
        what = "signed in" if fits else "code refused"
        detail = {"by": how} if fits else {}
        who = actor(request, visitor)
        if fits:
            audit.record(session, who, what, now=now, **detail)
        else:
            audit.record_outsider(session, parts.address_key, who, what, now=now)
    if not fits:
        return page(
            request, "sign_in_code.html", status=400, following=following, problem=_WRONG_CODE
        )
    answer = go("/console/account#recovery" if how == "recovery code" else following)
    session_cookie.set_token(answer, token, parts.settings.site.base_url)
    return answer


@router.post("/console/sign-out")
def sign_out(
    request: Request,
    parts: Parts,
    visitor: Annotated[Visitor, Depends(at_stage(*SignInStage))],
) -> Response:
    """End this session."""
    with transaction(parts.database) as session:
        sessions.end_one(session, visitor.user_id, visitor.session_id)
        audit.record(session, actor(request, visitor), "signed out", now=datetime.now(UTC))
    answer = go("/console/sign-in")
    session_cookie.clear(answer, parts.settings.site.base_url)
    return answer


def begin_after_password(
    session: Session, request: Request, parts: Container, user_id: int
) -> tuple[SignInStage, str]:
    """Begin the session of a user whose password was right; its stage and token."""
    stage = _stage(session, parts, user_id)
    if stage is SignInStage.ENROL:
        two_factor.begin(session, user_id)
    return stage, _begin(session, request, parts, user_id, stage)


def _stage(session: Session, parts: Container, user_id: int) -> SignInStage:
    """The stage of a session after the correct password."""
    if two_factor.has(session, user_id):
        return SignInStage.CODE
    return SignInStage.ENROL if parts.settings.console.require_second_factor else SignInStage.FULL


def _begin(
    session: Session, request: Request, parts: Container, user_id: int, stage: SignInStage
) -> str:
    return sessions.begin(
        session,
        user_id,
        stage,
        lasts=parts.settings.console.absolute_time,
        now=datetime.now(UTC),
        ip=network_address(request),
        browser=browser(request),
        instead_of=session_cookie.token_in(request, parts.settings.site.base_url),
    )


def _may_try(request: Request, parts: Container, email: str) -> bool:
    console = parts.settings.console
    with transaction(parts.database) as session:
        return sign_in_throttle.may_try(
            session,
            parts.address_key,
            account=users.identity_of(email),
            network=_ip(request),
            per_account=console.per_account,
            per_network=console.per_network,
            now=datetime.now(UTC),
        )


def _record_refusal(request: Request, parts: Container, known: Credentials | None) -> None:
    """Record the refusal without the typed address, which may be a password by mistake."""
    with transaction(parts.database) as session:
        who = Actor(
            known.user_id if known else None, known.email if known else "(no user)", _ip(request)
        )
        audit.record_outsider(
            session, parts.address_key, who, "password refused", now=datetime.now(UTC)
        )


def _show_again(
    request: Request, email: str, following: str, problem: str, *, status: int
) -> Response:
    following = session_cookie.safe_next(following)
    shown = {"following": following, "email": email[:320], "problem": problem}
    answer = page(request, "sign_in.html", status=status, **shown)
    if status == 429:
        answer.headers.update(_LATER)
    return answer


def _ip(request: Request) -> str:
    return network_address(request) or ""
