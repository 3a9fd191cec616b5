"""The service's HTTP: routes, security headers, and the background work that lives with it."""

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from newsletter.container import Container
from newsletter.db.engine import responds
from newsletter.web import errors
from newsletter.web.base_path import BasePath
from newsletter.web.console import routes as console
from newsletter.web.console.base.session_cookie import OwnCookieOnly
from newsletter.web.hooks import sendgrid_events, unsubscribe_email
from newsletter.web.proxies import Proxies
from newsletter.web.public import (
    archive,
    confirm,
    confirmed_requests,
    front_page,
    preferences,
    signup,
    unsubscribe,
    view_in_browser,
)
from newsletter.web.response_headers import EveryAnswer
from newsletter.web.visitor import network_address

_log = logging.getLogger(__name__)

#: Bytes of a request's body, where the route says nothing else: a form of ours is a few KB.
SMALL_BODY: Final = 64 * 1024
#: Fields and files of one form: as many as a list of checkboxes may have, and far too few to hurt.
_FIELDS: Final = 1000
_FILES: Final = 4


def create_app(assembly: Container, *, background: bool) -> FastAPI:
    """The web application; with ``background`` also the clock and the workers, in its lifetime."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if not background:
            yield
            return
        clock, workers, importer = assembly.clock(), assembly.workers(), assembly.import_worker()
        workers.start()
        clock.start()
        importer.start()
        try:
            yield
        finally:
            # Orderly: requests under way are answered and written down before we go. What the
            # clock has rendered for a schedule can be rendered again.
            await run_in_threadpool(assembly.on_text.stop)
            await run_in_threadpool(importer.stop)
            await run_in_threadpool(clock.stop)
            await run_in_threadpool(workers.stop)

    app = FastAPI(
        title="newsletter",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        routes=[*_routes().routes],
    )
    app.state.assembly = assembly
    # Whether the server was told to stop: streams end by themselves then.
    app.state.stopping = lambda: False
    # Session → how many live pages it has open.
    app.state.streams = Counter()
    errors.register(app)
    console.register(app)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")

    # Before any form is read, and before anybody is asked who they are. A route that takes more
    # says so beside its path (max_body_size); files of parts go to disk within the same limit.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=SMALL_BODY)

    base_url = assembly.settings.site.base_url
    app.add_middleware(EveryAnswer)
    app.add_middleware(OwnCookieOnly, base_url=base_url)
    # Nothing sees a request before it is known whose it is.
    app.add_middleware(Proxies, web=assembly.settings.web)
    # Outermost: inside, paths begin at /.
    app.add_middleware(BasePath, base_url=base_url)
    return app


@cache
def _routes() -> APIRouter:
    """All routes. FastAPI looks into each function behind them once, however many apps are made."""
    router = APIRouter(form_limits={"max_fields": _FIELDS, "max_files": _FILES})
    router.include_router(sendgrid_events.router)
    router.include_router(unsubscribe_email.router)
    router.include_router(front_page.router)
    router.include_router(signup.router)
    router.include_router(confirm.router)
    router.include_router(unsubscribe.router)
    router.include_router(preferences.router)
    router.include_router(confirmed_requests.router)
    router.include_router(view_in_browser.router)
    router.include_router(archive.router)
    console.include_in(router)
    router.add_api_route("/client-address", client_address, methods=["GET"])
    router.add_api_route(
        "/client-address", client_address, methods=["HEAD"], include_in_schema=False
    )
    router.add_api_route("/healthz", health, methods=["GET"])
    router.add_api_route("/healthz", health, methods=["HEAD"], include_in_schema=False)
    return router


def client_address(request: Request) -> PlainTextResponse:
    """The network address that the service takes the asker for, to test the proxies with."""
    return PlainTextResponse(f"{network_address(request) or 'unknown'}\n")


def health(request: Request, response: Response) -> dict[str, str]:
    """Whether this process can do its work: 200, or 503 when the database does not answer."""
    assembly: Container = request.app.state.assembly
    if not responds(assembly.database):
        response.status_code = 503
        return {"status": "database unreachable"}
    return {"status": "ok"}
