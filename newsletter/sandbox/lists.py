"""The account's own suppression lists, as SendGrid's API shows them (tsg_suppressions_v3)."""

import time
from collections.abc import Callable

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from newsletter.sandbox.store import Store

_KINDS = ("bounces", "blocks", "invalid_emails", "spam_reports", "unsubscribes")
#: 1 to 500 rows to a page.
_MAX_PAGE = 500


def routes(store: Store, authorised: Callable[[Request], Response | None]) -> list[Route]:
    """GET the lists; POST, GET and DELETE global unsubscribes."""

    async def listed(request: Request) -> Response:
        kind = request.path_params["kind"]
        if (refusal := authorised(request)) or kind not in _KINDS:
            return refusal or JSONResponse({"errors": [{"message": "not found"}]}, 404)
        query = request.query_params
        try:
            limit = min(max(int(query.get("limit", _MAX_PAGE)), 1), _MAX_PAGE)
            begin, end = int(query.get("start_time", 0)), int(query.get("end_time", 2**40))
            offset = int(query.get("offset", 0))
        except ValueError:
            return JSONResponse({"errors": [{"message": "expected a number"}]}, 400)

        def page() -> list[dict[str, object]]:
            rows = store.suppressions(
                kind, email=query.get("email", ""), begin=begin, end=end, limit=limit, offset=offset
            )
            return [
                {"email": email, "created": created, "reason": reason, "status": reason[-5:]}
                for email, reason, created in rows
            ]

        return JSONResponse(await run_in_threadpool(page))

    async def add_global(request: Request) -> Response:
        if refusal := authorised(request):
            return refusal
        try:
            emails = [str(e) for e in orjson.loads(await request.body())["recipient_emails"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return JSONResponse({"errors": [{"message": "recipient_emails is required"}]}, 400)
        for email in emails:
            store.suppress("unsubscribes", email, "")
        return JSONResponse({"recipient_emails": emails}, 201)

    async def one_global(request: Request) -> Response:
        if refusal := authorised(request):
            return refusal
        email = request.path_params["email"]
        if request.method == "DELETE":
            return Response(status_code=204 if store.unsuppress("unsubscribes", email) else 404)
        rows = store.suppressions(
            "unsubscribes", email=email, begin=0, end=int(time.time()) + 1, limit=1, offset=0
        )
        return JSONResponse({"recipient_email": email} if rows and rows[0][0] == email else {})

    return [
        Route("/v3/suppression/{kind}", listed),
        Route("/v3/asm/suppressions/global", add_global, methods=["POST"]),
        Route("/v3/asm/suppressions/global/{email}", one_global, methods=["GET", "DELETE"]),
    ]
