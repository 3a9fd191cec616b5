"""Error responses: a page for browsers, problem+json (RFC 9457) for programs."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from newsletter.errors import BusyError, LinkError, UserError
from newsletter.web.console.base.layout import page as console_page
from newsletter.web.console.base.permissions import StaleFormError
from newsletter.web.console.base.unsaved_draft import restored_draft
from newsletter.web.dependencies import page

#: Retry-After in seconds for BusyError.
_A_MOMENT = "5"
_TITLES = {
    404: "Page not found.",
    405: "This page does not support this request.",
    413: "The request is too large for this page.",
}


def register(app: FastAPI) -> None:
    """Register handlers that answer errors without a traceback."""
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(StaleFormError, _too_old)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(ClientDisconnect, _disconnected)


def _user_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    status = 404 if isinstance(error, LinkError) else 503 if isinstance(error, BusyError) else 400
    answer = problem(request, status, error.message, error.hint or "")
    if isinstance(error, BusyError):
        answer.headers["Retry-After"] = _A_MOMENT
    return answer


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = problem(request, error.status_code, _TITLES.get(error.status_code, error.detail), "")
    answer.headers.update(error.headers or {})
    return answer


async def _too_old(request: Request, error: Exception) -> Response:
    """The form again with a new token, so that a long text is not lost."""
    return await restored_draft(request, "") or _http_error(request, error)


def too_large(request: Request) -> Response:
    """The answer to a body that is larger than its route allows."""
    return problem(request, 413, _TITLES[413], "")


def _not_understood(request: Request, _error: Exception) -> Response:
    """The answer to invalid input. The input may be personal, so it is not shown."""
    return problem(request, 422, "The request is not valid.", "")


def _disconnected(_request: Request, _error: Exception) -> Response:
    """The answer to a client that disconnected: it reads none, and the log gets no error."""
    return Response(status_code=400)


def problem(request: Request, status: int, title: str, detail: str) -> Response:
    """The error as a page or as problem+json, whichever the client accepts."""
    if "text/html" in request.headers.get("accept", ""):
        if request.url.path.startswith("/console"):
            return console_page(request, "problem.html", status=status, title=title, detail=detail)
        return page(request, "problem.html", status=status, title=title, detail=detail)
    return JSONResponse(
        {"title": title, "status": status, "detail": detail},
        status_code=status,
        media_type="application/problem+json",
    )
