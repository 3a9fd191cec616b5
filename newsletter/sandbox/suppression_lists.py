"""The account's suppression lists, as SendGrid's API shows them (tsg_suppressions_v3).

The one unsubscribe group is stored as a list like the others.
"""

from collections.abc import Callable

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from newsletter.numbers import whole_number
from newsletter.sandbox.acceptance import GROUP_ID
from newsletter.sandbox.store import Store

_KINDS = ("bounces", "blocks", "invalid_emails", "spam_reports", "unsubscribes")
GROUP = "group"
#: Rows in a page, at most.
_MAX_PAGE = 500


def routes(store: Store, authorised: Callable[[Request], Response | None]) -> list[Route]:
    """GET the lists and DELETE from them; POST, GET and DELETE global unsubscribes."""
    lists = _Lists(store, authorised)
    return [
        Route("/v3/suppression/{kind}", lists.listed),
        Route("/v3/suppression/{kind}", lists.remove_all, methods=["DELETE"]),
        Route("/v3/suppression/{kind}/{email}", lists.remove, methods=["DELETE"]),
        Route("/v3/asm/suppressions", lists.grouped),
        Route("/v3/asm/groups/{group:int}/suppressions/{email}", lists.ungroup, methods=["DELETE"]),
        Route("/v3/asm/suppressions/global", lists.add_global, methods=["POST"]),
        Route("/v3/asm/suppressions/global/{email}", lists.one_global, methods=["GET", "DELETE"]),
    ]


class _Lists:
    """The handlers."""

    def __init__(self, store: Store, authorised: Callable[[Request], Response | None]) -> None:
        self._store, self._authorised = store, authorised

    async def listed(self, request: Request) -> Response:
        """A page of one list."""
        kind, query = request.path_params["kind"], request.query_params
        if refusal := self._authorised(request):
            return refusal
        if kind not in _KINDS:
            return JSONResponse({"errors": [{"message": "not found"}]}, 404)
        parsed = {
            name: whole_number(query.get(field, str(default)))
            for name, field, default in (
                ("limit", "limit", _MAX_PAGE),
                ("offset", "offset", 0),
                ("begin", "start_time", 0),
                ("end", "end_time", 2**40),
            )
        }
        numbers = {name: number for name, number in parsed.items() if number is not None}
        if len(numbers) < len(parsed):
            return JSONResponse({"errors": [{"message": "expected a number"}]}, 400)
        numbers["limit"] = min(max(numbers["limit"], 1), _MAX_PAGE)
        email = query.get("email", "")
        rows = await run_in_threadpool(self._store.suppressions, kind, email=email, **numbers)
        return JSONResponse(
            [
                {"email": address, "created": created, "reason": reason, "status": reason[-5:]}
                for address, reason, created in rows
            ]
        )

    async def remove(self, request: Request) -> Response:
        """Take an address off a list."""
        kind, email = request.path_params["kind"], request.path_params["email"]
        if refusal := self._authorised(request):
            return refusal
        if kind not in _KINDS:
            return JSONResponse({"errors": [{"message": "not found"}]}, 404)
        found = await run_in_threadpool(self._store.unsuppress, kind, email)
        return Response(status_code=204 if found else 404)

    async def remove_all(self, request: Request) -> Response:
        """Take addresses off a list: ``emails``, or all of them with ``delete_all``."""
        kind = request.path_params["kind"]
        if refusal := self._authorised(request):
            return refusal
        if kind not in _KINDS or kind == "unsubscribes":
            return JSONResponse({"errors": [{"message": "not found"}]}, 404)
        try:
            body = orjson.loads(await request.body())
            delete_all, emails = body.get("delete_all", False), body.get("emails", [])
        except (orjson.JSONDecodeError, AttributeError):
            delete_all, emails = False, []
        if bool(delete_all) == bool(emails):
            message = "one of delete_all and emails is required, and not both"
            return JSONResponse({"errors": [{"message": message}]}, 400)
        if delete_all:
            rows = await run_in_threadpool(
                self._store.suppressions, kind, email="", begin=0, end=2**40, limit=-1, offset=0
            )
            emails = [email for email, _, _ in rows]
        for email in emails:
            await run_in_threadpool(self._store.unsuppress, kind, str(email))
        return Response(status_code=204)

    async def grouped(self, request: Request) -> Response:
        """The addresses that unsubscribed from a group; this list has no pages."""
        if refusal := self._authorised(request):
            return refusal
        rows = await run_in_threadpool(
            self._store.suppressions, GROUP, email="", begin=0, end=2**40, limit=-1, offset=0
        )
        return JSONResponse(
            [
                {"email": email, "group_id": GROUP_ID, "group_name": "News", "created_at": created}
                for email, _, created in rows
            ]
        )

    async def ungroup(self, request: Request) -> Response:
        """Take an address off the group's list."""
        if refusal := self._authorised(request):
            return refusal
        if request.path_params["group"] != GROUP_ID:
            return Response(status_code=404)
        email = request.path_params["email"]
        found = await run_in_threadpool(self._store.unsuppress, GROUP, email)
        return Response(status_code=204 if found else 404)

    async def add_global(self, request: Request) -> Response:
        """Unsubscribe addresses from everything."""
        if refusal := self._authorised(request):
            return refusal
        try:
            emails = [str(e) for e in orjson.loads(await request.body())["recipient_emails"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return JSONResponse({"errors": [{"message": "recipient_emails is required"}]}, 400)
        for email in emails:
            self._store.suppress("unsubscribes", email, "")
        return JSONResponse({"recipient_emails": emails}, 201)

    async def one_global(self, request: Request) -> Response:
        """Whether an address is unsubscribed, or take it off the list."""
        if refusal := self._authorised(request):
            return refusal
        email = request.path_params["email"].lower()
        if request.method == "DELETE":
            found = self._store.unsuppress("unsubscribes", email)
            return Response(status_code=204 if found else 404)
        rows = self._store.suppressions(
            "unsubscribes", email=email, begin=0, end=2**40, limit=1, offset=0
        )
        return JSONResponse({"recipient_email": email} if rows and rows[0][0] == email else {})
