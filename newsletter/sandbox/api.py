"""The handlers of Mail Send, and of inspecting the sandbox."""

import asyncio
import base64
import secrets
import time
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from newsletter.errors import UserError
from newsletter.numbers import whole_number
from newsletter.sandbox.acceptance import RECIPIENTS, Complaint, complaints
from newsletter.sandbox.config import SandboxConfig
from newsletter.sandbox.event_plan import EventPlanner
from newsletter.sandbox.events import Poster
from newsletter.sandbox.faults import Faults
from newsletter.sandbox.store import Store

_MAX_BYTES = 30_000_000
#: The key of a request's scope at which server.py puts the connection.
TRANSPORT = "sandbox.transport"


class MailSendApi:
    """The handlers."""

    def __init__(
        self,
        config: SandboxConfig,
        store: Store,
        faults: Faults,
        poster: Poster,
        *,
        planner: EventPlanner,
        public_key: str,
    ) -> None:
        self._config, self._store, self._faults = config, store, faults
        self._poster, self._public_key = poster, public_key
        self._planner = planner

    def authorised(self, request: Request) -> Response | None:
        """None for a known key, else SendGrid's 401."""
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key in self._config.api_keys:
            return None
        return errors(
            401, Complaint("The provided authorization grant is invalid, expired, or revoked")
        )

    async def send(self, request: Request) -> Response:
        """POST /v3/mail/send."""
        faults = self._faults
        if faults.happens("refuse"):
            return _Hangup()
        raw = await request.body()
        if faults.happens("slow"):
            await asyncio.sleep(faults.seconds("slow"))
        if faults.happens("rate_limit"):
            reset = str(int(time.time()) + max(1, round(faults.seconds("rate_limit"))))
            limited = errors(429, Complaint("too many requests"))
            limited.headers["X-RateLimit-Reset"] = reset
            return limited
        if faults.happens("server_error"):
            return errors(500, Complaint("Internal Server Error"))
        if faults.happens("unavailable"):
            return errors(503, Complaint("Service Unavailable"))
        answer = await run_in_threadpool(self._handle, request, raw)
        if answer.status_code == 202:
            if faults.happens("accept_then_lose"):
                return _Hangup()
            if faults.happens("error_after_accepting"):
                return errors(500, Complaint("Internal Server Error"))
            if faults.happens("unavailable_after_accepting"):
                return errors(503, Complaint("Service Unavailable"))
        return answer

    def _handle(self, request: Request, raw: bytes) -> Response:
        if refusal := self.authorised(request):
            return refusal
        if len(raw) > _MAX_BYTES:
            return errors(413, Complaint("Payload too large"))
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return errors(415, Complaint("Content-Type should be application/json."))
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return errors(400, Complaint("Bad Request"))
        if wrong := complaints(message):
            return errors(400, *wrong)
        if not self._may_send(message["from"]["email"]):
            return errors(
                403,
                Complaint(
                    "The from address does not match a verified Sender Identity. Mail cannot be "
                    "sent until this error is resolved. Visit https://sendgrid.com/docs/for-"
                    "developers/sending-email/sender-identity/ to see the Sender Identity "
                    "requirements",
                    "from",
                ),
            )
        if ((message.get("mail_settings") or {}).get("sandbox_mode") or {}).get("enable"):
            return Response(status_code=200)
        return self._accept(message)

    def _may_send(self, email: str) -> bool:
        verified = self._config.verified_senders
        return verified is None or bool(verified & {email, email.rpartition("@")[2]})

    def _accept(self, message: dict[str, Any]) -> Response:
        message_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        personalizations = message.pop("personalizations")
        parts = [
            (recipient["email"], part)
            for part in personalizations
            for recipients in [part.pop(kind, None) or () for kind in RECIPIENTS]
            for recipient in recipients
        ]
        first = self._store.accept(message_id, message, parts)
        self._store.schedule(self._planner.events(message_id, message, parts, first))
        return Response(status_code=202, headers={"X-Message-Id": message_id})

    async def summary(self, _request: Request) -> Response:
        """The numbers of requests, recipients, events and posts."""
        counts = await run_in_threadpool(self._store.summary)
        poster = self._poster
        return JSONResponse({**counts, "posts": poster.posts, "failed_posts": poster.failed})

    async def accepted(self, request: Request) -> Response:
        """Every accepted email as JSON Lines, so that tests can compare each recipient."""
        after = whole_number(request.query_params.get("after", "0"))
        if after is None:
            return errors(400, Complaint("after must be a number", "after"))

        def lines() -> Any:  # noqa: ANN401
            for mail in self._store.accepted(after):
                args = {**mail.body["custom_args"], **mail.part.get("custom_args", {})}
                line = {"id": mail.id, "email": mail.email, "message_id": mail.message_id}
                yield orjson.dumps({**line, "custom_args": args}) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def switch_faults(self, request: Request) -> Response:
        """Set all faults from a JSON object."""
        try:
            faults = orjson.loads(await request.body() or b"{}")
            self._faults.switch(faults)
        except (orjson.JSONDecodeError, AttributeError):
            return errors(400, Complaint("Send a JSON object."))
        except UserError as error:
            return errors(400, Complaint(str(error)))
        return JSONResponse({"faults": faults})

    async def reset(self, _request: Request) -> Response:
        """Delete everything."""
        await run_in_threadpool(self._store.reset)
        return JSONResponse({})

    async def public_key(self, _request: Request) -> Response:
        """The key that verifies the events."""
        return JSONResponse({"public_key": self._public_key})


class _Hangup(Response):
    """Closes the connection without an answer."""

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Abort the connection."""
        scope[TRANSPORT].abort()


def errors(status: int, *wrong: Complaint) -> JSONResponse:
    """An error response in SendGrid's format."""
    return JSONResponse({"errors": [one.as_json() for one in wrong]}, status_code=status)
