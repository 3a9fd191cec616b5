"""What monitoring asks: whether the service is alive and ready, and its metrics."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from newsletter.monitoring.process_monitor import ProcessMonitor

router = APIRouter()


def _get(path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the route for GET and, outside the description of the service, for HEAD."""

    def added(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        router.add_api_route(path, handler, methods=["GET"])
        router.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False)
        return handler

    return added


@_get("/healthz")
async def health() -> dict[str, str]:
    """Whether the process is alive: it answers, and asks nobody else."""
    return {"status": "ok"}


@_get("/readyz")
async def readiness(request: Request) -> Response:
    """Whether the service can do its work: 200 or 503, with each check for people."""
    status, found = await run_in_threadpool(_monitor(request).readiness)
    return JSONResponse(found, status_code=status)


@_get("/metrics")
async def metrics(request: Request) -> Response:
    """The metrics in Prometheus's format, for whoever has ``metrics.token``; 404 without one."""
    given = request.headers.get("authorization", "")
    answer = await run_in_threadpool(_monitor(request).metrics, given, token_required=True)
    if answer.status != 200:
        raise HTTPException(answer.status, headers=answer.headers)
    return Response(answer.body, headers=answer.headers)


def _monitor(request: Request) -> ProcessMonitor:
    monitor: ProcessMonitor = request.app.state.monitor
    return monitor
