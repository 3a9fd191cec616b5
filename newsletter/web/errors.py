"""From an error to an answer: a page for people, problem+json (RFC 9457) for programs."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from newsletter.errors import BusyError, LinkError, UserError
from newsletter.web.console.base.layout import page as console_page
from newsletter.web.console.base.permissions import StaleFormError
from newsletter.web.console.base.unsaved_draft import given_back
from newsletter.web.dependencies import page

#: Seconds after which too many at once may be fewer.
_A_MOMENT = "5"
_TITLES = {
    404: "There is no such page.",
    405: "This page cannot be used that way.",
    413: "This is more than this page takes.",
}


def register(app: FastAPI) -> None:
    """Answer errors in the reader's words, and never with a traceback."""
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(StaleFormError, _too_old)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(ClientDisconnect, _gone)


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
    """The form once more, with a new token, where somebody may have typed for long."""
    return await given_back(request, "") or _http_error(request, error)


def too_large(request: Request) -> Response:
    """The answer to a body that is longer than its route takes."""
    return problem(request, 413, _TITLES[413], "")


def _not_understood(request: Request, _error: Exception) -> Response:
    """What was sent is of another kind. It may be personal, so it is not shown."""
    return problem(request, 422, "This page cannot read what was sent to it.", "")


def _gone(_request: Request, _error: Exception) -> Response:
    """Whoever broke off in the middle of a body reads no answer; to the log it is no fault."""
    return Response(status_code=400)


def problem(request: Request, status: int, title: str, detail: str) -> Response:
    """The same words as a page or as problem+json, whichever the client asked for."""
    if "text/html" in request.headers.get("accept", ""):
        if request.url.path.startswith("/console"):
            return console_page(request, "problem.html", status=status, title=title, detail=detail)
        return page(request, "problem.html", status=status, title=title, detail=detail)
    return JSONResponse(
        {"title": title, "status": status, "detail": detail},
        status_code=status,
        media_type="application/problem+json",
    )
