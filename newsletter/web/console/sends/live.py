"""A send's figures as they change: server-sent events (WHATWG HTML, section 9.2).

The stream waits on the event loop and holds neither a thread nor a connection of the
database between two looks. It ends when the send is in another state than the page shows,
when the session ends, when the browser goes, and when the server is told to stop.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from newsletter.accounts import sessions
from newsletter.accounts.models import Role, SignInStage
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.sending.queries import send_status
from newsletter.web.console.base import session_cookie
from newsletter.web.console.base.layout import fragment
from newsletter.web.console.base.permissions import role
from newsletter.web.console.sends import progress as send_progress
from newsletter.web.console.sends.views import find
from newsletter.web.dependencies import Parts

router = APIRouter()

#: Seconds between two looks, and between signs of life: a browser that went is noticed by them.
_EVERY, _ALIVE = 1.0, 15
#: Streams of one session, and of all: each looks into the database every second. Browsers open
#: no more than six connections to a site, and pages need some of them.
_A_SESSION, _ALL = 4, 60
_OVER = "event: over\ndata: over\n\n"


@router.get("/console/sends/{send_id:int}/live")
async def live(
    send_id: int,
    request: Request,
    parts: Parts,
    visitor: Annotated[Visitor, Depends(role(Role.VIEWER))],
    shown: Annotated[str, Query(alias="state", max_length=20)] = "",
) -> Response:
    """The figures whenever they change, for as long as the send is in the state ``shown``."""
    await run_in_threadpool(_require, parts, send_id)
    streams: Counter[int] = request.app.state.streams
    if not _is_room(streams, visitor):
        # The browser does not ask again; its page stays as it was loaded.
        raise HTTPException(429, "This page is open in too many windows.")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    figures = _counted(streams, visitor, _figures(request, parts, send_id, shown))
    return StreamingResponse(figures, media_type="text/event-stream", headers=headers)


def _is_room(streams: Counter[int], visitor: Visitor) -> bool:
    return streams[visitor.session_id] < _A_SESSION and streams.total() < _ALL


async def _counted(
    streams: Counter[int], visitor: Visitor, figures: AsyncIterator[str]
) -> AsyncIterator[str]:
    """The stream, counted while it goes on. Nothing, where others came in between."""
    if not _is_room(streams, visitor):
        return
    streams[visitor.session_id] += 1
    try:
        async for piece in figures:
            yield piece
    finally:
        streams[visitor.session_id] -= 1
        if not streams[visitor.session_id]:
            del streams[visitor.session_id]


def _require(parts: Container, send_id: int) -> None:
    with reading(parts.database) as session:
        find(session, send_id)


async def _figures(
    request: Request, parts: Container, send_id: int, shown: str
) -> AsyncIterator[str]:
    token = session_cookie.token_in(request, parts.settings.site.base_url)
    before, looks = "", 0
    while not request.app.state.stopping():
        now = await run_in_threadpool(_look, request, parts, send_id, shown, token)
        if now is None:
            yield _OVER
            return
        if now != before:
            yield (
                "event: progress\n" + "".join(f"data: {line}\n" for line in now.split("\n")) + "\n"
            )
        elif looks % _ALIVE == 0:
            yield ": still here\n\n"
        before, looks = now, looks + 1
        await asyncio.sleep(_EVERY)
        if await request.is_disconnected():
            return


def _look(request: Request, parts: Container, send_id: int, shown: str, token: str) -> str | None:
    """The figures as HTML; None when they are not to be had any more."""
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        # To look on is no sign of life: who is away is signed out as on any other page.
        visitor = sessions.find(session, token, idle=parts.settings.console.idle_time, now=now)
        if visitor is None or visitor.stage is not SignInStage.FULL:
            return None
        send = send_status.find(session, send_id)
        if send.state != shown:
            return None
        progress = send_progress.of(session, send, now=now)
        return fragment(request, "send_progress.html", progress=progress)
