"""Mails held until their time, and calling them back (tsg_mail_v3, tsg_scheduled_sends_v3).

A batch is an id that mails carry; a status on it, pause or cancel, stops what is held under it.
"""

import secrets
import threading
import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from newsletter.sandbox.acceptance import Complaint
from newsletter.sandbox.api import errors
from newsletter.sandbox.event_plan import Planner
from newsletter.sandbox.store import Store

_STATUSES = frozenset({"pause", "cancel"})


class Releaser:
    """A thread that lets held mails go at their time, or throws them away."""

    def __init__(self, store: Store, planner: Planner) -> None:
        self._store, self._planner = store, planner
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-holds")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look under way."""
        self._stopping.set()
        self._thread.join()

    def look(self, now: float) -> None:
        """Deal with everything whose time has come."""
        while ripe := self._store.ripe(now):
            if ripe.status is not None:
                self._store.end_hold(ripe, "cancelled" if ripe.status == "cancel" else "expired")
                continue
            # The account's lists count as they are now, not as they were when it was taken.
            parts = self._store.parts(ripe)
            events = self._planner.events(ripe.message_id, ripe.body, parts, ripe.first)
            self._store.end_hold(ripe, "processed", events)

    def _run(self) -> None:
        while not self._stopping.wait(0.05):
            self.look(time.time())


def routes(store: Store, authorised: Callable[[Request], Response | None]) -> list[Route]:
    """Batch ids, and the statuses on them."""
    holds = _Holds(store)

    def guarded(
        handler: Callable[[str, object], Response],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if refusal := authorised(request):
                return refusal
            try:
                sent = orjson.loads(await request.body() or b"{}")
            except orjson.JSONDecodeError:
                return errors(400, Complaint("Bad Request"))
            return await run_in_threadpool(handler, request.path_params.get("id", ""), sent)

        return answer

    one = "/v3/user/scheduled_sends/{id}"
    return [
        Route("/v3/mail/batch", guarded(holds.new), methods=["POST"]),
        Route("/v3/mail/batch/{id}", guarded(holds.validate), methods=["GET"]),
        Route("/v3/user/scheduled_sends", guarded(holds.stop), methods=["POST"]),
        Route("/v3/user/scheduled_sends", guarded(holds.stopped), methods=["GET"]),
        Route(one, guarded(holds.status), methods=["GET"]),
        Route(one, guarded(holds.change), methods=["PATCH"]),
        Route(one, guarded(holds.release), methods=["DELETE"]),
    ]


class _Holds:
    """The handlers: a batch id from the path, and what the body said."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def new(self, _id: str, _sent: object) -> Response:
        """Give out a batch id."""
        batch_id = secrets.token_urlsafe(24)
        self._store.new_batch(batch_id)
        return JSONResponse({"batch_id": batch_id}, 201)

    def validate(self, batch_id: str, _sent: object) -> Response:
        """Whether it was given out; SendGrid says 400, not 404, of one that was not."""
        if self._store.knows_batch(batch_id):
            return JSONResponse({"batch_id": batch_id})
        return errors(400, Complaint("invalid batch id"))

    def stop(self, _id: str, sent: object) -> Response:
        """Put a status on a batch that has none."""
        batch_id = sent.get("batch_id") if isinstance(sent, dict) else None
        status = _status(sent)
        if status is None:
            return errors(400, Complaint("invalid status", "status"))
        if not isinstance(batch_id, str) or not self._store.knows_batch(batch_id):
            return errors(400, Complaint("invalid batch id", "batch_id"))
        if not self._store.stop(batch_id, status, anew=True):
            words = "a status for this batch id exists, try PATCH to update the status"
            return errors(400, Complaint(words))
        return JSONResponse({"batch_id": batch_id, "status": status}, 201)

    def stopped(self, _id: str, _sent: object) -> Response:
        """Every status there is."""
        return _listed(self._store.stopped())

    def status(self, batch_id: str, _sent: object) -> Response:
        """The status of one batch, in a list; an empty one when it has none."""
        return _listed(self._store.stopped(batch_id))

    def change(self, batch_id: str, sent: object) -> Response:
        """Replace the status of a batch that has one."""
        status = _status(sent)
        if status is None:
            return errors(400, Complaint("invalid status", "status"))
        return self._changed(batch_id, status)

    def release(self, batch_id: str, _sent: object) -> Response:
        """Take the status off a batch that has one."""
        return self._changed(batch_id, None)

    def _changed(self, batch_id: str, status: str | None) -> Response:
        if self._store.stop(batch_id, status, anew=False):
            return Response(status_code=204)
        return errors(404, Complaint("batch id not found"))


def _status(sent: object) -> str | None:
    status = sent.get("status") if isinstance(sent, dict) else None
    return status if isinstance(status, str) and status in _STATUSES else None


def _listed(rows: list[tuple[str, str]]) -> Response:
    return JSONResponse([{"batch_id": batch_id, "status": status} for batch_id, status in rows])
