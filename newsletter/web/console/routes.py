"""All routes of the console, and the redirect to sign in."""

from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute

from newsletter.web.console.accounts import (
    audit_log,
    first_owner,
    my_account,
    password_reset,
    sign_in,
    two_factor,
    users,
)
from newsletter.web.console.base.layout import go
from newsletter.web.console.base.permissions import SignInNeeded
from newsletter.web.console.base.unsaved_draft import restored_draft
from newsletter.web.console.dashboard import (
    circuit_breaker,
    deliverability,
    departure_logs,
    messages,
    overview,
)
from newsletter.web.console.issues import editor as issue_editor
from newsletter.web.console.issues import preview as issue_preview
from newsletter.web.console.issues import review as issue_review
from newsletter.web.console.issues import views as issue_views
from newsletter.web.console.publication import settings_page, webhooks_page
from newsletter.web.console.schedules import calendar as schedule_calendar
from newsletter.web.console.schedules import form as schedule_form
from newsletter.web.console.schedules import views as schedule_views
from newsletter.web.console.sends import actions as send_actions
from newsletter.web.console.sends import activity as send_activity
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

#: Each module has one or a few pages, and its routes declare who may open them. The first route
#: that matches a path answers it.
_PAGES = (
    overview,
    messages,
    # Before issue_views, because /_new and /_edit would match the slug of an issue there.
    issue_editor,
    issue_views,
    issue_review,
    issue_preview,
    send_create,
    departure_logs,
    send_views,
    send_activity,
    send_live,
    send_actions,
    schedule_views,
    schedule_calendar,
    schedule_form,
    circuit_breaker,
    deliverability,
    first_owner,
    sign_in,
    password_reset,
    my_account,
    two_factor,
    users,
    audit_log,
    settings_page,
    webhooks_page,
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
    """Register the console's paths for the navigation, and the redirect to sign in."""
    app.state.console_paths = {
        route.path
        for module in _PAGES
        for route in module.router.routes
        if isinstance(route, APIRoute)
    }
    app.add_exception_handler(SignInNeeded, _redirect_to_sign_in)


async def _redirect_to_sign_in(request: Request, error: Exception) -> Response:
    """Redirect to the sign-in form and then back to the page; a POST is not repeated."""
    assert isinstance(error, SignInNeeded)
    if "hx-request" in request.headers:
        # A script requested a part of a page, and handles 401 itself.
        return Response("Sign in again.", 401, media_type="text/plain")
    if request.method not in {"GET", "HEAD"}:
        return await restored_draft(request, error.path) or go(error.path)
    query = f"?{request.url.query}" if request.url.query else ""
    return go(f"{error.path}?next={quote(request.url.path + query, safe='')}")
