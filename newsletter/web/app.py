"""The web application: routes, middleware, and background work with the same lifetime."""

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from newsletter.container import Container
from newsletter.monitoring.process_monitor import ProcessMonitor
from newsletter.web import errors, monitoring
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
from newsletter.web.request_metrics import RequestMetrics
from newsletter.web.response_headers import EveryAnswer
from newsletter.web.visitor import network_address

_log = logging.getLogger(__name__)

#: Bytes of a request body, unless the route allows more. Our forms have a few KB.
SMALL_BODY: Final = 64 * 1024
#: Fields and files of one form: enough for a list of checkboxes, too few to cost memory.
_FIELDS: Final = 1000
_FILES: Final = 4
#: FastAPI's own spans and logs would have paths with tokens, queries and texts of errors; traces
#: are written by newsletter.tracing.
_NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def create_app(
    container: Container, *, background: bool, monitor: ProcessMonitor | None = None
) -> FastAPI:
    """The web application; with ``background`` it also runs the clock and the workers."""

    monitor = monitor or ProcessMonitor(container)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if not background:
            yield
            return
        clock, workers, importer = container.clock(), container.workers(), container.import_worker()
        webhooks = container.webhook_sender()
        monitor.watch(workers, clock)
        workers.start()
        clock.start()
        importer.start()
        webhooks.start()
        try:
            yield
        finally:
            # Open requests to the provider are answered and recorded before the process ends. An
            # issue that the clock has rendered for a schedule can be rendered again.
            await run_in_threadpool(container.text_workers.stop)
            await run_in_threadpool(importer.stop)
            await run_in_threadpool(webhooks.stop)
            await run_in_threadpool(clock.stop)
            await run_in_threadpool(workers.stop)

    app = FastAPI(
        title="newsletter",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        routes=[*_routes().routes],
        telemetry=_NO_TELEMETRY,
    )
    app.state.container = container
    app.state.monitor = monitor
    # Whether the server is stopping. Streams end themselves then.
    app.state.stopping = lambda: False
    # Session → number of its open live pages.
    app.state.streams = Counter()
    errors.register(app)
    console.register(app)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")

    # Runs before forms are read and users are signed in. A route that accepts more has its own
    # max_body_size, which also limits uploaded files.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=SMALL_BODY)

    base_url = container.settings.site.base_url
    app.add_middleware(EveryAnswer)
    if monitor.has_metrics:
        app.add_middleware(RequestMetrics)
    app.add_middleware(OwnCookieOnly, base_url=base_url)
    # Sets the client's address before all other code reads it.
    app.add_middleware(Proxies, web=container.settings.web)
    # The outermost: all other code sees paths from / on.
    app.add_middleware(BasePath, base_url=base_url)
    return app


@cache
def _routes() -> APIRouter:
    """All routes. Cached, because FastAPI inspects the function of each route."""
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
    router.include_router(monitoring.router)
    return router


def client_address(request: Request) -> PlainTextResponse:
    """The network address that the service sees for this client, to test the proxy settings."""
    return PlainTextResponse(f"{network_address(request) or 'unknown'}\n")
