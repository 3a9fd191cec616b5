"""Sign-up: a hosted form, and the endpoint that forms and programs of other sites post to.

Any site may post, so there is no CSRF token; the link in the confirmation email proves consent.
The answer and the work for it are the same whether or not an address is known.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.sending.delivery import outbox
from newsletter.settings.sections import SignupSection as SignupSettings
from newsletter.web import challenge
from newsletter.web.challenge import ChallengeError
from newsletter.web.dependencies import Parts, page
from newsletter.web.public import signup_emails
from newsletter.web.public.signup_body import Post, read_post
from newsletter.web.sentences import sentence
from newsletter.web.visitor import browser, network_address
from subscribers import rate_limit
from subscribers.consent import topics
from subscribers.models import Topic
from subscribers.signup import domain_checks, double_opt_in
from subscribers.signup.form import FieldError, Signup, SignupError, SignupRules, parse_signup
from subscribers.signup.mailboxes import private_domain_of

router = APIRouter()

#: The name under which the hosted form is recorded.
_HOSTED = "hosted"
_HOUR = timedelta(hours=1)
#: Retry-After in seconds when a rate limit is reached.
_LATER = str(15 * 60)
#: Visible fields; on an error the other fields are kept as hidden fields.
_SHOWN = ("email", "name", "topics")
_KEPT = ("language", "timezone", "form", "next")
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; font-src 'self'; {scripts}"
    "form-action 'self'{origins}; base-uri 'none'; frame-ancestors 'none'"
)
_SCRIPTS = "script-src 'self'; worker-src 'self'; connect-src 'self'; "


@router.head("/subscribe", include_in_schema=False)
@router.get("/subscribe")
def form(request: Request, parts: Parts) -> Response:
    """The hosted form."""
    return _form(request, parts, {"form": _HOSTED}, [], status=200)


@router.post("/subscribe")
async def subscribe(request: Request, parts: Parts) -> Response:
    """Accept one sign-up, from a form or from a program."""
    shared = _shared(request, parts)
    try:
        post = await read_post(request)
    except HTTPException as error:
        error.headers = {**(error.headers or {}), **shared}
        raise
    answer = await run_in_threadpool(_take, request, parts, post)
    answer.headers.update(shared)
    return answer


@router.options("/subscribe")
@router.options("/subscribe/challenge")
def preflight(request: Request, parts: Parts) -> Response:
    """CORS preflight: whether scripts of that origin may post."""
    shared = _shared(request, parts)
    if "Access-Control-Allow-Origin" not in shared:
        return Response(status_code=403, headers=shared)
    allowed = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "content-type",
        "Access-Control-Max-Age": "3600",
    }
    return Response(status_code=204, headers={**shared, **allowed})


@router.head("/subscribe/challenge", include_in_schema=False)
@router.get("/subscribe/challenge")
def new_challenge(request: Request, parts: Parts) -> Response:
    """A new challenge for the ALTCHA widget."""
    if parts.settings.signup.challenge == "none":
        raise HTTPException(404)
    made = challenge.challenge(parts.form_keys, datetime.now(UTC))
    headers = {"Cache-Control": "no-store", **_shared(request, parts)}
    return JSONResponse(made, headers=headers)


def _take(request: Request, parts: Container, post: Post) -> Response:
    if post.fields.get("homepage"):
        # People do not see this field: a bot filled it in, and gets the usual answer.
        return _thanks(request, parts, post)
    settings, now = parts.settings.signup, datetime.now(UTC)
    try:
        _check_stamp(parts, post, now)
        offered = {topic.slug: topic.name for topic in _topics(parts)}
        signup = parse_signup(
            post.fields,
            SignupRules(
                topics=list(offered),
                topic_names=offered,
                fields=settings.fields,
                wording=settings.wording,
                refuse_disposable=settings.refuse_disposable,
                accepts_email=domain_checks.accepts_email if settings.check_mx else None,
            ),
            ip=network_address(request),
            user_agent=browser(request),
        )
        proof = (
            challenge.solved(parts.form_keys, post.text("altcha"))
            if settings.challenge == "altcha"
            else None
        )
        if full := _write_down(request, parts, signup, proof, now=now):
            return _too_often(request, parts, post, full)
    except SignupError as error:
        return _errors(request, parts, post, error.problems)
    except ChallengeError as error:
        return _errors(request, parts, post, [FieldError("altcha", error.message, hint=error.hint)])
    return _thanks(request, parts, post)


def _write_down(
    request: Request, parts: Container, signup: Signup, proof: bytes | None, *, now: datetime
) -> str | None:
    """Store the sign-up and enqueue its email; returns which limit is reached, if any."""
    settings, secret = parts.settings.signup, parts.address_key
    host = rate_limit.network_of(request.client.host if request.client else "")
    network = rate_limit.key_of(secret, "signup network", host)
    with transaction(parts.database) as session:
        if not rate_limit.hit(session, network, limit=settings.per_ip, window=_HOUR, now=now):
            return "from your network"
        house = private_domain_of(signup.address)
        if house is not None:
            domain = rate_limit.key_of(secret, "signup domain", house)
            if not rate_limit.hit(
                session, domain, limit=settings.per_domain, window=_HOUR, now=now
            ):
                return f"for addresses at {house}"
        if proof is not None:
            challenge.use_up(session, secret, proof, now=now)
        asked = double_opt_in.request(
            session,
            signup,
            address_key=secret,
            now=now,
            confirm_within=settings.confirm_within,
            per_address=settings.per_address,
            double_opt_in=settings.double_opt_in,
        )
        # An email that must not be sent is rendered and rolled back too, so that the work is equal.
        with session.begin_nested() as point:
            mail = signup_emails.written(parts, asked)
            email = signup.address.email
            outbox.enqueue(session, kind=asked.mail, email=email, mail=mail, now=now)
            if not asked.send:
                point.rollback()
    return None


def _check_stamp(parts: Container, post: Post, now: datetime) -> None:
    """Check when the hosted form was opened; forms on other sites have no such stamp."""
    stamp = post.fields.get("opened")
    if stamp is None:
        return
    opened = challenge.opened_at(parts.form_keys, post.text("opened"))
    if opened is None or not now - challenge.STAMP_LIFE < opened <= now:
        raise SignupError([FieldError("opened", "this form has expired", hint="Send it again.")])
    if now - opened < parts.settings.signup.fill_time:
        raise SignupError(
            [
                FieldError(
                    "opened", "the form was sent too fast", hint="Wait a moment and send it again."
                )
            ]
        )


def _thanks(request: Request, parts: Container, post: Post) -> Response:
    """The answer to every accepted sign-up, whether or not the address is known."""
    at_once = not parts.settings.signup.double_opt_in
    if _wants_json(request, post):
        return JSONResponse({"status": "subscribed" if at_once else "check your mail"}, 202)
    following = post.text("next")
    if _may_return_to(following, parts.settings.signup, parts.settings.site.base_url):
        return RedirectResponse(following, status_code=303)
    return page(request, "check_mail.html", email=post.text("email").strip(), at_once=at_once)


def _errors(
    request: Request, parts: Container, post: Post, problems: Iterable[FieldError]
) -> Response:
    """The errors: in the form, filled in again, or as JSON by field."""
    listed = list(problems)
    if not _wants_json(request, post):
        return _form(request, parts, post.fields, listed, status=400)
    words = {problem.field: _sentence(problem) for problem in listed}
    return _problem(400, "The sign-up has errors.", errors=words)


def _too_often(request: Request, parts: Container, post: Post, whose: str) -> Response:
    title = f"Too many sign-ups {whose}."
    if _wants_json(request, post):
        answer = _problem(429, title, detail="Try again later.")
    else:
        sorry = FieldError("network", f"too many sign-ups {whose}", hint="Try again later.")
        answer = _form(request, parts, post.fields, [sorry], status=429)
    answer.headers["Retry-After"] = _LATER
    return answer


def _form(
    request: Request,
    parts: Container,
    fields: Mapping[str, Any],
    problems: list[FieldError],
    *,
    status: int,
) -> Response:
    settings = parts.settings.signup
    attributes = fields.get("attributes") or {}
    kept = [(name, fields.get(name)) for name in _KEPT]
    # Attributes that the form may not set are dropped, so that the next attempt passes.
    kept += [(f"attributes.{name}", attributes.get(name)) for name in settings.fields]
    answer = page(
        request,
        "subscribe.html",
        status=status,
        topics=_topics(parts),
        chosen=fields.get("topics") or [],
        email=fields.get("email") or "",
        person=fields.get("name") or "",
        kept=[(name, value) for name, value in kept if value],
        problems={problem.field: _sentence(problem) for problem in problems},
        shown=_SHOWN,
        wording=settings.wording,
        stamp=challenge.stamp(parts.form_keys, datetime.now(UTC)),
        challenge=settings.challenge,
    )
    # Chromium applies form-action to the redirect after a post as well.
    answer.headers["Content-Security-Policy"] = _POLICY.format(
        scripts=_SCRIPTS if settings.challenge == "altcha" else "",
        origins="".join(f" {origin}" for origin in settings.origins),
    )
    if status == 200:
        del answer.headers["X-Robots-Tag"]
    return answer


def _topics(parts: Container) -> list[Topic]:
    with reading(parts.database) as session:
        return topics.public(session)


def _shared(request: Request, parts: Container) -> dict[str, str]:
    """The CORS headers: exact origins only, and no cookies."""
    origin = request.headers.get("origin", "")
    known = _origin(origin) in {_origin(known) for known in parts.settings.signup.origins}
    return {"Vary": "Origin"} | ({"Access-Control-Allow-Origin": origin} if known else {})


def _may_return_to(url: str, settings: SignupSettings, base_url: str) -> bool:
    """Whether a sign-up may redirect to this URL: open redirects would help phishers."""
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        return False
    origin = _origin(url)
    return origin is not None and origin in {_origin(one) for one in (*settings.origins, base_url)}


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None if it is not a plain web URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    default = {"https": 443, "http": 80}.get(parts.scheme)
    if default is None or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port if port is not None else default


def _wants_json(request: Request, post: Post) -> bool:
    accepted = request.headers.get("accept", "")
    return post.json or ("application/json" in accepted and "text/html" not in accepted)


def _problem(status: int, title: str, **more: object) -> Response:
    return JSONResponse(
        {"title": title, "status": status, **more},
        status_code=status,
        media_type="application/problem+json",
    )


def _sentence(problem: FieldError) -> str:
    said = sentence(problem.message)
    return f"{said} {problem.hint}" if problem.hint else said
