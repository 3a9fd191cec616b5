"""SendGrid's HTTP on this machine, for what this product uses of it. A tool for trying and testing.

It shares no code with the product's own edge to SendGrid, so that it proves things
independently, and it listens on loopback unless told otherwise.
"""

import asyncio
import base64
import re
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from newsletter.errors import MachineError, UserError
from newsletter.sandbox import lists, mailbox
from newsletter.sandbox.acceptance import Complaint, complaints
from newsletter.sandbox.events import Poster, Signer, body, one_click
from newsletter.sandbox.faults import Faults
from newsletter.sandbox.outcomes import DEFAULT_RATES, Fate, fate
from newsletter.sandbox.store import Mail, Store

_MAX_BYTES = 30_000_000
_TRANSPORT = "sandbox.transport"
_HREF = re.compile(r'href="(https?://[^"]+)"')
#: Happenings that put the address on one of the account's own lists.
_LISTED = {
    "bounce": ("bounces", "550 5.1.1"),
    "blocked": ("blocks", "421 4.7.0"),
    "spamreport": ("spam_reports", ""),
    "unsubscribe": ("unsubscribes", ""),
}


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """How a sandbox behaves."""

    host: str = "127.0.0.1"
    #: 0 takes a free one.
    port: int = 0
    api_keys: frozenset[str] = frozenset({"SG.sandbox"})
    #: Addresses or domains that may send; None lets every sender.
    verified_senders: frozenset[str] | None = None
    webhook_url: str | None = None
    #: None keeps mails in a temporary file that goes with the sandbox.
    database: Path | None = None
    #: Shares of happenings for addresses that are not magic.
    event_rates: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_RATES))
    seed: int = 1
    #: Seconds between two happenings to one mail.
    event_delay: float = 0.3
    #: Events to a post.
    event_batch: int = 1000


class RunningSandbox:
    """A sandbox that listens; use it as a context manager, or close it."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.faults = Faults()
        self.signer = Signer()
        # Whatever was opened is closed again if a later step fails.
        with ExitStack() as opened:
            listening = opened.enter_context(_listen(config.host, config.port))
            self.url = f"http://{config.host}:{listening.getsockname()[1]}"
            self.store = Store(config.database or _temporary(opened))
            opened.callback(self.store.close)
            self.poster = Poster(
                self.store,
                self.signer,
                self.faults,
                batch=config.event_batch,
                one_click=self.one_click,
            )
            self.poster.url = config.webhook_url
            self.poster.start()
            opened.callback(self.poster.stop)
            self._start(listening)
            opened.callback(self._stop)
            self._opened = opened.pop_all()

    def _start(self, listening: socket.socket) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                _with_transport(create_app(self)),
                log_level="critical",
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="sandbox"
        )
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    @property
    def public_key(self) -> str:
        """The key that proves its events: base64 DER, as SendGrid shows it."""
        return self.signer.public_key

    def set_webhook_url(self, url: str | None) -> None:
        """Where events are posted from now on; None posts none."""
        self.poster.url = url

    def set_faults(self, **wanted: object) -> None:
        """Switch faults: see newsletter.sandbox.faults. None given switches all off."""
        self.faults.switch(wanted)

    def one_click(self, mail_id: int) -> int:
        """Unsubscribe as the mail's recipient's client would; the status of the answer."""
        mail = self.store.mail(mail_id)
        header = mail.part.get("headers", {}).get("List-Unsubscribe", "") if mail else ""
        link = re.search(r"<(https?://[^>]+)>", header)
        return one_click(link[1]) if link else 0

    def wait(self) -> None:
        """Block until it is closed."""
        self._thread.join()

    def close(self) -> None:
        """Stop listening and posting."""
        self._opened.close()

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> "RunningSandbox":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


def start_sandbox(config: SandboxConfig) -> RunningSandbox:
    """A running sandbox; MachineError when the port is in use."""
    return RunningSandbox(config)


def run_sandbox(config: SandboxConfig, ready: Callable[[RunningSandbox], None]) -> None:
    """Run until interrupted; ``ready`` is told once it listens."""
    with start_sandbox(config) as running:
        ready(running)
        running.wait()


def create_app(sandbox: RunningSandbox) -> Starlette:
    """The sandbox's HTTP."""
    api = _Api(sandbox)
    return Starlette(
        routes=[
            Route("/v3/mail/send", api.send, methods=["POST"]),
            *lists.routes(sandbox.store, api.authorised),
            Route("/sandbox/summary", api.summary),
            Route("/sandbox/accepted", api.accepted),
            Route("/sandbox/faults", api.switch_faults, methods=["POST"]),
            Route("/sandbox/reset", api.reset, methods=["POST"]),
            Route("/sandbox/public-key", api.public_key),
            *mailbox.routes(sandbox.store, sandbox.one_click),
        ]
    )


class _Api:
    """The handlers of mail send and of inspection."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self._sandbox = sandbox
        self._config, self._store = sandbox.config, sandbox.store

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
        faults = self._sandbox.faults
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
        answer = await run_in_threadpool(self._take, request, raw)
        if answer.status_code == 202:
            if faults.happens("accept_then_lose"):
                return _Hangup()
            if faults.happens("error_after_accepting"):
                return errors(500, Complaint("Internal Server Error"))
        return answer

    def _take(self, request: Request, raw: bytes) -> Response:
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
        if message.get("mail_settings", {}).get("sandbox_mode", {}).get("enable"):
            return Response(status_code=200)
        return self._accept(message)

    def _may_send(self, email: str) -> bool:
        verified = self._config.verified_senders
        return verified is None or bool(verified & {email, email.rpartition("@")[2]})

    def _accept(self, message: dict[str, Any]) -> Response:
        message_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        personalizations = message.pop("personalizations")
        parts = [(to["email"], part) for part in personalizations for to in part.pop("to")]
        first = self._store.accept(message_id, message, parts)
        self._plan_events(message_id, message, parts, first)
        return Response(status_code=202, headers={"X-Message-Id": message_id})

    def _plan_events(
        self,
        message_id: str,
        message: dict[str, Any],
        parts: list[tuple[str, dict[str, Any]]],
        first: int,
    ) -> None:
        now = time.time()
        listed = self._store.lists_of([email for email, _ in parts])
        links = _HREF.findall(message["content"][-1]["value"])
        shared = {
            "custom_args": message.get("custom_args", {}),
            "categories": message.get("categories"),
        }
        rows = []
        for number, (email, part) in enumerate(parts):
            mail = Mail(first + number, message_id, number, now, email, "", shared, part)
            coming = fate(
                email, message_id,
                rates=self._config.event_rates, seed=self._config.seed,
                listed_on=listed.get(email.lower()),
            )  # fmt: skip
            rows += self._happenings(mail, coming, links, now)
        self._store.schedule(rows)

    def _happenings(
        self, mail: Mail, coming: Fate, links: list[str], now: float
    ) -> list[tuple[int, float, str, str]]:
        rows = []
        kinds = coming.happenings if coming.drop_reason else ("processed", *coming.happenings)
        for step, kind in enumerate(kinds):
            if kind in _LISTED:
                self._store.suppress(_LISTED[kind][0], mail.email, _LISTED[kind][1])
            at = now + step * self._config.event_delay
            link = mailbox.fill(links[mail.number % len(links)], mail.part) if links else ""
            text = orjson.dumps(
                body(mail, kind, at=at, reason=coming.drop_reason, url=link)
            ).decode()
            rows.append((mail.id, at, kind, text))
        return rows

    async def summary(self, _request: Request) -> Response:
        """Counts of what was accepted and of what happened."""
        counts = await run_in_threadpool(self._store.summary)
        poster = self._sandbox.poster
        return JSONResponse({**counts, "posts": poster.posts, "failed_posts": poster.failed})

    async def accepted(self, request: Request) -> Response:
        """Every accepted mail as JSON Lines, to be compared person by person."""
        after = int(request.query_params.get("after", "0"))

        def lines() -> Any:  # noqa: ANN401
            for mail in self._store.accepted(after):
                args = {**mail.body["custom_args"], **mail.part.get("custom_args", {})}
                line = {"id": mail.id, "email": mail.email, "message_id": mail.message_id}
                yield orjson.dumps({**line, "custom_args": args}) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def switch_faults(self, request: Request) -> Response:
        """Set all faults from a JSON object."""
        try:
            wanted = orjson.loads(await request.body() or b"{}")
            self._sandbox.faults.switch(wanted)
        except (orjson.JSONDecodeError, AttributeError):
            return errors(400, Complaint("Send a JSON object."))
        except UserError as error:
            return errors(400, Complaint(str(error)))
        return JSONResponse({"faults": wanted})

    async def reset(self, _request: Request) -> Response:
        """Forget everything."""
        await run_in_threadpool(self._store.reset)
        return JSONResponse({})

    async def public_key(self, _request: Request) -> Response:
        """The key that proves the events."""
        return JSONResponse({"public_key": self._sandbox.public_key})


class _Hangup(Response):
    """No answer: the connection is cut under the client."""

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Leave without a word."""
        scope[_TRANSPORT].abort()


def _with_transport(app: ASGIApp) -> ASGIApp:
    """Keep the connection at hand: only uvicorn's own ``send`` knows it."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        scope[_TRANSPORT] = send.__self__.transport  # type: ignore[attr-defined]
        await app(scope, receive, send)

    return door


def errors(status: int, *wrong: Complaint) -> JSONResponse:
    """A refusal as SendGrid writes it."""
    return JSONResponse({"errors": [one.as_json() for one in wrong]}, status_code=status)


def _temporary(opened: ExitStack) -> Path:
    folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-"))
    return Path(folder) / "mailbox.db"


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise MachineError(
            f"cannot listen there: {error.strerror or error}",
            place=f"{host}:{port}",
            hint="Stop what uses it, or choose another with --port.",
        ) from None
