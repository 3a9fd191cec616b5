"""The mailbox: a page where a person reads each mail as its recipient got it.

Needs no script. The mail stands in a sandboxed frame under a policy that runs nothing.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from newsletter.sandbox.store import Mail, Store

_PAGE = 50
_PAGES = Environment(loader=FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True)
_POLICY = (
    "default-src 'none'; style-src 'self'; frame-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: http: data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
#: The mail's own dark styles follow the reader's system; these switch them by hand.
_SCHEME = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)")


def fill(text: str, part: Mapping[str, Any]) -> str:
    """The text as one person reads it: each tag replaced in one pass, as it stands, unescaped."""
    values: Mapping[str, str] = part.get("substitutions") or {}
    if not values:
        return text
    tags = re.compile("|".join(map(re.escape, sorted(values, key=len, reverse=True))))
    return tags.sub(lambda found: values[found[0]], text)


def routes(store: Store, one_click: Callable[[int], int]) -> list[Route]:
    """The pages, and the same mails as JSON for tests."""

    async def index(request: Request) -> Response:
        search, before = (
            request.query_params.get("q", ""),
            _number(request.query_params.get("before")),
        )
        mails = await run_in_threadpool(store.mails, search=search, before=before, limit=_PAGE)
        counts = await run_in_threadpool(store.summary)
        rows = [_row(mail) for mail in mails]
        older = mails[-1].id if len(mails) == _PAGE else None
        return _page("index.html", rows=rows, search=search, older=older, counts=counts)

    async def show(request: Request) -> Response:
        mail = await _found(request)
        if mail is None:
            return _page("missing.html", status=404)
        view = request.query_params.get("view", "mail")
        scheme = request.query_params.get("scheme", "light")
        values = {**_message(mail), "view": view, "scheme": scheme, "row": _row(mail)}
        events = await run_in_threadpool(store.events_of, mail.id)
        timeline = [{**e, "time": _clock(e["timestamp"])} for e in events]
        clicked = request.query_params.get("clicked")
        return _page("mail.html", events=timeline, clicked=clicked, **values)

    async def html(request: Request) -> Response:
        mail = await _found(request)
        if mail is None:
            return _page("missing.html", status=404)
        scheme = "dark" if request.query_params.get("scheme") == "dark" else "light"
        text = _SCHEME.sub(
            lambda found: "all" if found[1] == scheme else "not all", _message(mail)["html"]
        ).replace("@media all", "@media screen")
        return HTMLResponse(text, headers={"Content-Security-Policy": _MAIL_POLICY})

    async def click(request: Request) -> Response:
        mail = await _found(request)
        status = await run_in_threadpool(one_click, mail.id) if mail else 0
        return RedirectResponse(f"/mail/{request.path_params['id']}?clicked={status}", 303)

    async def messages(request: Request) -> Response:
        query = request.query_params
        mails = await run_in_threadpool(
            store.mails, search=query.get("q", ""), before=_number(query.get("before")), limit=_PAGE
        )
        return JSONResponse([_row(mail) for mail in mails])

    async def message(request: Request) -> Response:
        mail = await _found(request)
        return JSONResponse(_message(mail) if mail else {}, 200 if mail else 404)

    async def _found(request: Request) -> Mail | None:
        return await run_in_threadpool(store.mail, request.path_params["id"])

    async def style(_request: Request) -> Response:
        text = (Path(__file__).parent / "pages" / "mailbox.css").read_text(encoding="utf-8")
        return Response(text, media_type="text/css")

    return [
        Route("/", index),
        Route("/mailbox.css", style),
        Route("/mail/{id:int}", show),
        Route("/mail/{id:int}/html", html),
        Route("/mail/{id:int}/one-click", click, methods=["POST"]),
        Route("/sandbox/messages", messages),
        Route("/sandbox/messages/{id:int}", message),
    ]


def _row(mail: Mail) -> dict[str, Any]:
    return {
        "id": mail.id,
        "email": mail.email,
        "subject": fill(mail.part.get("subject") or mail.body.get("subject", ""), mail.part),
        "sender": mail.body.get("from", {}),
        "state": mail.state.replace("_", " "),
        "time": _clock(mail.at),
    }


def _message(mail: Mail) -> dict[str, Any]:
    """The mail as its recipient got it. Header values are not substituted, as with SendGrid."""
    parts = {part["type"]: part["value"] for part in mail.body["content"]}
    sender = mail.body["from"]
    headers = {
        "From": f"{sender.get('name', '')} <{sender['email']}>".strip(),
        "To": mail.email,
        "Subject": _row(mail)["subject"],
        **({"Reply-To": mail.body["reply_to"]["email"]} if mail.body.get("reply_to") else {}),
        **mail.body.get("headers", {}),
        **mail.part.get("headers", {}),
        "X-Message-Id": mail.message_id,
    }
    return {
        "id": mail.id,
        "email": mail.email,
        "headers": headers,
        "subject": headers["Subject"],
        "html": fill(parts.get("text/html", ""), mail.part),
        "text": fill(parts.get("text/plain", ""), mail.part),
        "custom_args": {**mail.body.get("custom_args", {}), **mail.part.get("custom_args", {})},
    }


def _page(name: str, *, status: int = 200, **values: object) -> Response:
    text = _PAGES.get_template(name).render(**values)
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return HTMLResponse(text, status, headers)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%d %b, %H:%M:%S")
