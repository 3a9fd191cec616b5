"""A local server with the part of SendGrid's HTTP API that this product uses.

It shares no code with newsletter.provider, so that tests against it are independent. It listens
on the loopback interface by default.
"""

import re
import socket
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from newsletter.errors import MachineError
from newsletter.http_server import HttpServer
from newsletter.sandbox import account, mailbox, suppression_lists
from newsletter.sandbox.api import TRANSPORT, MailSendApi
from newsletter.sandbox.config import SandboxConfig as SandboxConfig
from newsletter.sandbox.event_plan import EventPlanner
from newsletter.sandbox.events import Poster, Signer, one_click
from newsletter.sandbox.faults import Faults
from newsletter.sandbox.store import Store


class RunningSandbox:
    """A running sandbox; use it as a context manager, or close it."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.faults = Faults()
        self.signer = Signer()
        #: Path → answer, or status code, that replaces the answer of a healthy account.
        self.account: dict[str, Any] = {}
        # If a step fails, everything opened before it is closed again.
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
            # A lambda, because the account's settings may change while the sandbox runs.
            self.planner = EventPlanner(
                config, self.store, lambda what: account.tracks(self.account, what)
            )
            self._start(listening)
            opened.callback(self._stop)
            self._opened = opened.pop_all()

    def _start(self, listening: socket.socket) -> None:
        self._server = HttpServer(
            uvicorn.Config(
                _with_transport(create_app(self)),
                log_level="critical",
                access_log=False,
                lifespan="off",
                server_header=False,
                proxy_headers=False,
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
        """The key that verifies its events: base64 DER, as SendGrid shows it."""
        return self.signer.public_key

    def set_webhook_url(self, url: str | None) -> None:
        """Set where events are posted from now on; None posts none."""
        self.poster.url = url

    def set_faults(self, **faults: object) -> None:
        """Set all faults (newsletter.sandbox.faults); without arguments there are none."""
        self.faults.switch(faults)

    def one_click(self, mail_id: int) -> int:
        """Unsubscribe as an email client would; returns the HTTP status, 0 for none."""
        mail = self.store.mail(mail_id)
        header = mail.part.get("headers", {}).get("List-Unsubscribe", "") if mail else ""
        link = re.search(r"<(https?://[^>]+)>", header)
        return one_click(link[1]) if link else 0

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
    """Start a sandbox; MachineError when the port is in use."""
    return RunningSandbox(config)


def create_app(sandbox: RunningSandbox) -> Starlette:
    """The sandbox's HTTP application."""
    api = MailSendApi(
        sandbox.config,
        sandbox.store,
        sandbox.faults,
        sandbox.poster,
        planner=sandbox.planner,
        public_key=sandbox.public_key,
    )
    return Starlette(
        routes=[
            Route("/v3/mail/send", api.send, methods=["POST"]),
            *suppression_lists.routes(sandbox.store, api.authorised),
            *account.routes(sandbox, api.authorised),
            Route("/sandbox/summary", api.summary),
            Route("/sandbox/accepted", api.accepted),
            Route("/sandbox/faults", api.switch_faults, methods=["POST"]),
            Route("/sandbox/reset", api.reset, methods=["POST"]),
            Route("/sandbox/public-key", api.public_key),
            *mailbox.routes(sandbox.store, sandbox.one_click),
        ]
    )


def _with_transport(app: ASGIApp) -> ASGIApp:
    """Put the connection into the scope, because only uvicorn's own ``send`` knows it."""

    async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TRANSPORT] = send.__self__.transport  # type: ignore[attr-defined]
        await app(scope, receive, send)

    return with_transport


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
            hint="Stop the program that uses the port, or choose another port with --port.",
        ) from None
