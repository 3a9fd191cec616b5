"""All routes of the console, and what happens to who is not signed in."""

from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute

from newsletter.web.console import (
    account,
    bounces,
    deliverability,
    departure_logs,
    factor,
    forgot,
    imports,
    issue_editor,
    issue_preview,
    issue_review,
    issues,
    log,
    overview,
    people,
    person,
    schedule_calendar,
    schedule_form,
    schedules,
    segments,
    sends,
    sends_control,
    sends_live,
    sends_new,
    sign_in,
    subscribers,
)
from newsletter.web.console.access import SignInNeeded
from newsletter.web.console.kept import given_back
from newsletter.web.console.shell import go

#: Each module is a page or a few that belong together. Their routes declare who may open them.
#: The first that fits an address answers it.
_PAGES = (
    overview,
    # Its addresses have no slug of an issue in them.
    issue_editor,
    issues,
    issue_review,
    issue_preview,
    sends_new,
    departure_logs,
    sends,
    sends_live,
    sends_control,
    schedules,
    schedule_calendar,
    schedule_form,
    deliverability,
    sign_in,
    forgot,
    account,
    factor,
    people,
    log,
    bounces,
    subscribers,
    imports,
    person,
    segments,
)


def register(app: FastAPI) -> None:
    """Add the console to the application."""
    for module in _PAGES:
        app.include_router(module.router, include_in_schema=False)
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
