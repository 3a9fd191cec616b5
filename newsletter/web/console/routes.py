"""All routes of the console, and what happens to who is not signed in."""

from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute

from newsletter.web.console.accounts import (
    audit_log,
    my_account,
    password_reset,
    sign_in,
    two_factor,
    users,
)
from newsletter.web.console.base.layout import go
from newsletter.web.console.base.permissions import SignInNeeded
from newsletter.web.console.base.unsaved_draft import given_back
from newsletter.web.console.dashboard import deliverability, departure_logs, overview
from newsletter.web.console.issues import editor as issue_editor
from newsletter.web.console.issues import preview as issue_preview
from newsletter.web.console.issues import review as issue_review
from newsletter.web.console.issues import views as issue_views
from newsletter.web.console.schedules import calendar as schedule_calendar
from newsletter.web.console.schedules import form as schedule_form
from newsletter.web.console.schedules import views as schedule_views
from newsletter.web.console.sends import actions as send_actions
from newsletter.web.console.sends import create as send_create
from newsletter.web.console.sends import live as send_live
from newsletter.web.console.sends import views as send_views
from newsletter.web.console.subscribers import (
    bounces,
    import_views,
    segments,
    subscriber_list,
    topics_page,
)
from newsletter.web.console.subscribers import detail as subscriber_detail

#: Each module is a page or a few that belong together. Their routes declare who may open them.
#: The first that fits an address answers it.
_PAGES = (
    overview,
    # Its addresses have no slug of an issue in them.
    issue_editor,
    issue_views,
    issue_review,
    issue_preview,
    send_create,
    departure_logs,
    send_views,
    send_live,
    send_actions,
    schedule_views,
    schedule_calendar,
    schedule_form,
    deliverability,
    sign_in,
    password_reset,
    my_account,
    two_factor,
    users,
    audit_log,
    bounces,
    topics_page,
    subscriber_list,
    import_views,
    subscriber_detail,
    segments,
)


def include_in(router: APIRouter) -> None:
    """Add the console's routes."""
    for module in _PAGES:
        router.include_router(module.router, include_in_schema=False)


def register(app: FastAPI) -> None:
    """Tell the application what the console's addresses are, and whom it sends to sign in."""
    app.state.console_paths = {
        route.path
        for module in _PAGES
        for route in module.router.routes
        if isinstance(route, APIRoute)
    }
    app.add_exception_handler(SignInNeeded, _lead_in)


async def _lead_in(request: Request, error: Exception) -> Response:
    """To the form, and back to the page afterwards; a post is not done again by itself."""
    assert isinstance(error, SignInNeeded)
    if "hx-request" in request.headers:
        # A form to sign in has no place within a page; that page's script says what to do.
        return Response("Sign in again.", 401, media_type="text/plain")
    if request.method not in {"GET", "HEAD"}:
        return await given_back(request, error.path) or go(error.path)
    query = f"?{request.url.query}" if request.url.query else ""
    return go(f"{error.path}?next={quote(request.url.path + query, safe='')}")
