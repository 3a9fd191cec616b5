"""The mailbox: pages that show each accepted email as its recipient got it.

They need no scripts. The email is in a sandboxed frame with a policy that runs none.
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

from newsletter.numbers import whole_number
from newsletter.sandbox.store import SandboxEmail, Store

_PAGE = 50
_FOLDER = Path(__file__).parent / "pages"
_PAGES = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True)
_POLICY = (
    "default-src 'none'; style-src 'self'; frame-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: http: data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; "
    "sandbox allow-popups allow-popups-to-escape-sandbox"
)
#: An email's dark styles follow the operating system; the page replaces this to switch them.
_SCHEME = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)")


def fill(text: str, part: Mapping[str, Any]) -> str:
    """The text for one recipient: each tag replaced in one pass, without escaping."""
    values: Mapping[str, str] = part.get("substitutions") or {}
    if not values:
        return text
    tags = re.compile("|".join(map(re.escape, sorted(values, key=len, reverse=True))))
    return tags.sub(lambda match: values[match[0]], text)


def routes(store: Store, one_click: Callable[[int], int]) -> list[Route]:
    """The pages, and the same emails as JSON for tests."""
    pages = _Pages(store, one_click)
    return [
        Route("/", pages.index),
        Route("/mailbox.css", pages.style),
        Route("/mail/{id:int}", pages.show),
        Route("/mail/{id:int}/html", pages.html),
        Route("/mail/{id:int}/one-click", pages.click, methods=["POST"]),
        Route("/sandbox/messages", pages.messages),
        Route("/sandbox/messages/{id:int}", pages.message),
    ]


class _Pages:
    """The handlers."""

    def __init__(self, store: Store, one_click: Callable[[int], int]) -> None:
        self._store, self._one_click = store, one_click

    async def index(self, request: Request) -> Response:
        """The latest emails, or those to addresses that contain ``q``."""
        mails = await self._mails(request)
        counts = await run_in_threadpool(self._store.summary)
        older = mails[-1].id if len(mails) == _PAGE else None
        search = request.query_params.get("q", "")
        rows = [_row(mail) for mail in mails]
        return _page("index.html", rows=rows, search=search, older=older, counts=counts)

    async def show(self, request: Request) -> Response:
        """One email: as HTML on two screens, as text, or its source."""
        mail = await self._mail(request)
        if mail is None:
            return _page("missing.html", status=404)
        query = request.query_params
        events = await run_in_threadpool(self._store.events_of, mail.id)
        return _page(
            "mail.html",
            **_message(mail),
            row=_row(mail),
            view=query.get("view", "mail"),
            scheme=query.get("scheme", "light"),
            clicked=query.get("clicked"),
            events=[{**event, "time": _clock(event["timestamp"])} for event in events],
        )

    async def html(self, request: Request) -> Response:
        """The HTML part alone, for the frames."""
        mail = await self._mail(request)
        if mail is None:
            return _page("missing.html", status=404)
        scheme = "dark" if request.query_params.get("scheme") == "dark" else "light"
        text = _SCHEME.sub(
            lambda match: "(min-width: 0)" if match[1] == scheme else "(max-width: 0)",
            _message(mail)["html"],
        )
        # Links open in a new window, as in an email client, and not inside the frame.
        text = text.replace("<head>", '<head><base target="_blank">', 1)
        return HTMLResponse(text, headers={"Content-Security-Policy": _MAIL_POLICY})

    async def click(self, request: Request) -> Response:
        """Unsubscribe as the recipient's email client would."""
        mail = await self._mail(request)
        status = await run_in_threadpool(self._one_click, mail.id) if mail else 0
        return RedirectResponse(f"/mail/{request.path_params['id']}?clicked={status}", 303)

    async def messages(self, request: Request) -> Response:
        """The list as JSON."""
        return JSONResponse([_row(mail) for mail in await self._mails(request)])

    async def message(self, request: Request) -> Response:
        """One email as JSON."""
        mail = await self._mail(request)
        return JSONResponse(_message(mail) if mail else {}, 200 if mail else 404)

    async def style(self, _request: Request) -> Response:
        """The style sheet of the pages."""
        text = (_FOLDER / "mailbox.css").read_text(encoding="utf-8")
        return Response(text, media_type="text/css")

    async def _mail(self, request: Request) -> SandboxEmail | None:
        return await run_in_threadpool(self._store.mail, request.path_params["id"])

    async def _mails(self, request: Request) -> list[SandboxEmail]:
        search, before = request.query_params.get("q", ""), request.query_params.get("before", "")
        number = whole_number(before)
        return await run_in_threadpool(self._store.mails, search=search, before=number, limit=_PAGE)


def _row(mail: SandboxEmail) -> dict[str, Any]:
    return {
        "id": mail.id,
        "email": mail.email,
        "subject": fill(mail.part.get("subject") or mail.body.get("subject", ""), mail.part),
        "sender": mail.body.get("from", {}),
        "state": mail.state.replace("_", " "),
        "time": _clock(mail.at),
    }


def _message(mail: SandboxEmail) -> dict[str, Any]:
    """The email as its recipient got it. As at SendGrid, tags in headers are not replaced."""
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


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b, %H:%M:%S UTC")
