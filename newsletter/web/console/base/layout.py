"""The layout of each console page: navigation, CSRF token, headers."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup

from newsletter.accounts import sessions
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role, SignInStage
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.web.console.base import session_cookie
from newsletter.web.dependencies import page as plain_page
from newsletter.web.dependencies import part
from newsletter.web.visitor import network_address

#: Allows only scripts from our files, no inline scripts.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; "
        "img-src 'self' data:; font-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-src 'self'; frame-ancestors 'none'"
    ),
    # With "no-referrer", browsers would not send the Origin of posted forms.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """One entry of the navigation."""

    label: str
    path: str
    #: The key that opens it after "g" (static/console.js).
    key: str
    least: Role = Role.VIEWER


NAVIGATION = (
    NavigationEntry("Overview", "/console/", "o"),
    NavigationEntry("Issues", "/console/issues", "i"),
    NavigationEntry("Sends", "/console/sends", "s"),
    NavigationEntry("Subscribers", "/console/subscribers", "p"),
    NavigationEntry("Segments", "/console/segments", "e"),
    NavigationEntry("Schedules", "/console/schedules", "c"),
    NavigationEntry("Deliverability", "/console/deliverability", "d"),
    NavigationEntry("Settings", "/console/settings", "t"),
    NavigationEntry("Users", "/console/users", "u", Role.OWNER),
    NavigationEntry("Audit log", "/console/log", "l", Role.OWNER),
)


def page(
    request: Request, name: str, *, status: int = 200, token: str = "", **values: object
) -> Response:
    """Render ``console/NAME`` with the visitor, the navigation and the CSRF token.

    A new session's ``token`` is set as a cookie. A browser without one gets a token without a
    session, because the CSRF token is bound to it.
    """
    parts: Container = request.app.state.container
    base_url = parts.settings.site.base_url
    known = "" if token else session_cookie.token_in(request, base_url)
    token = token or known or sessions.new_token()
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    response = plain_page(
        request,
        f"console/{name}",
        status=status,
        visitor=visitor,
        entries=_entries(request.app, visitor),
        here=request.url.path,
        # Of the machine's settings, so this costs no query.
        sandbox=parts.loaded.sendgrid.host if parts.is_local else "",
        moment=partial(_moment, zone=ZoneInfo(parts.settings.site.timezone)),
        csrf=session_cookie.form_token(parts.form_keys, token),
        **values,
    )
    response.headers.update(_HEADERS)
    if not known:
        session_cookie.set_token(response, token, base_url)
    return response


def fragment(request: Request, name: str, **values: object) -> str:
    """Render ``console/NAME`` as a part of a page that is open already."""
    zone = ZoneInfo(request.app.state.container.settings.site.timezone)
    return part(request, f"console/{name}", moment=partial(_moment, zone=zone), **values)


def go(path: str) -> Response:
    """Redirect to another page with GET, so that a reload repeats no POST."""
    return RedirectResponse(path, status_code=303, headers={"Cache-Control": "no-store"})


def actor(request: Request, visitor: Visitor) -> Actor:
    """The visitor, for the audit log."""
    return Actor(visitor.user_id, visitor.email, network_address(request) or "")


def _moment(at: datetime | None, *, zone: ZoneInfo) -> Markup:
    """A time in the publication's time zone, as a ``time`` element."""
    if at is None:
        return Markup("–")
    local = at.astimezone(zone)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), f"{local.day} {local:%b %Y, %H:%M %Z}"
    )


def _entries(app: FastAPI, visitor: Visitor | None) -> list[NavigationEntry]:
    """The pages that the visitor may open."""
    if visitor is None or visitor.stage is not SignInStage.FULL:
        return []
    paths = app.state.console_paths
    return [one for one in NAVIGATION if one.path in paths and visitor.role.covers(one.least)]
