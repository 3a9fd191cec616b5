"""How the account is set up, as SendGrid's API shows it: healthy, unless told otherwise.

Source: Twilio's OpenAPI for scopes, webhooks, domain authentication and tracking settings.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from newsletter.sandbox.acceptance import Complaint
from newsletter.sandbox.api import errors
from newsletter.sandbox.config import SandboxConfig
from newsletter.sandbox.events import Poster

_SCOPES = """
mail.send suppression.read suppression.delete suppression.create asm.groups.read
asm.groups.suppressions.read asm.groups.suppressions.delete asm.suppressions.global.create
asm.suppressions.global.delete user.webhooks.event.settings.read user.webhooks.parse.settings.read
whitelabel.read tracking_settings.read
""".split()
_EVENTS = """
processed deferred delivered bounce dropped open click spam_report unsubscribe group_unsubscribe
group_resubscribe
""".split()
#: A new account of SendGrid's tracks clicks and opens.
_TRACKING = {"click": True, "open": True, "subscription": False, "google_analytics": False}
_WEBHOOK_ID = "sandbox"


def tracks(told: Mapping[str, Any], what: str) -> bool:
    """Whether mails that say nothing else are tracked so, by default or as told otherwise."""
    said = told.get(f"tracking_settings/{what}")
    return bool(said.get("enabled")) if isinstance(said, dict) else _TRACKING.get(what, False)


class Kept(Protocol):
    """What a running sandbox shows of itself."""

    config: SandboxConfig
    poster: Poster
    account: dict[str, Any]

    @property
    def public_key(self) -> str:
        """The key that proves its events."""
        ...


def routes(sandbox: Kept, authorised: Callable[[Request], Response | None]) -> Iterable[Route]:
    """The questions that `newsletter doctor` asks, and a way to change the answers."""
    account = _Account(sandbox)

    def guarded(
        answer: Callable[[Request], object],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            if refusal := authorised(request):
                return refusal
            path = request.url.path.removeprefix("/v3/")
            told = sandbox.account.get(path, ...)
            if isinstance(told, int):
                return errors(told, Complaint("access forbidden"))
            return JSONResponse(answer(request) if told is ... else told)

        return answered

    return [
        Route("/v3/scopes", guarded(account.scopes)),
        Route("/v3/user/webhooks/event/settings/all", guarded(account.webhooks)),
        Route("/v3/user/webhooks/event/settings/signed/{id}", guarded(account.signed)),
        Route("/v3/user/webhooks/parse/settings", guarded(account.inbound)),
        Route("/v3/whitelabel/domains", guarded(account.domains)),
        Route("/v3/tracking_settings/{what}", guarded(account.tracking)),
        Route("/sandbox/account", account.change, methods=["POST"]),
    ]


class _Account:
    """The answers."""

    def __init__(self, sandbox: Kept) -> None:
        self._sandbox = sandbox

    def scopes(self, _request: Request) -> object:
        """What the API key may do: everything that this product uses."""
        return {"scopes": _SCOPES}

    def webhooks(self, _request: Request) -> object:
        """The one webhook, if events are posted at all."""
        url = self._sandbox.poster.url
        hook = {"id": _WEBHOOK_ID, "enabled": True, "url": url, **dict.fromkeys(_EVENTS, True)}
        hook |= {"friendly_name": "sandbox", "public_key": self._sandbox.public_key}
        return {"max_allowed": 5, "webhooks": [hook] if url else []}

    def signed(self, _request: Request) -> object:
        """The webhook's public key."""
        return {"id": _WEBHOOK_ID, "public_key": self._sandbox.public_key}

    def inbound(self, _request: Request) -> object:
        """Hosts that mail comes in for: none."""
        return {"result": []}

    def domains(self, request: Request) -> object:
        """The domain asked for, when addresses of it may send."""
        name = request.query_params.get("domain", "")
        verified = self._sandbox.config.verified_senders
        if not name or (verified is not None and name not in verified):
            return []
        dns = {
            "mail_cname": {"host": f"em1.{name}", "data": "u1.wl.sendgrid.net"},
            "dkim1": {"host": f"s1._domainkey.{name}", "data": "s1.domainkey.u1.wl.sendgrid.net"},
            "dkim2": {"host": f"s2._domainkey.{name}", "data": "s2.domainkey.u1.wl.sendgrid.net"},
        }
        records = {key: {"type": "cname", "valid": True, **row} for key, row in dns.items()}
        return [{"id": 1, "domain": name, "subdomain": "em1", "valid": True, "dns": records}]

    def tracking(self, request: Request) -> object:
        """Whether mails that say nothing else are tracked so."""
        return {"enabled": tracks({}, request.path_params["what"])}

    async def change(self, request: Request) -> Response:
        """Replace answers: an object of path → JSON, or → status to refuse with; {} heals."""
        try:
            wanted = orjson.loads(await request.body() or b"{}")
        except orjson.JSONDecodeError:
            wanted = None
        if not isinstance(wanted, dict):
            return errors(400, Complaint("Send a JSON object."))
        self._sandbox.account = wanted
        return JSONResponse({"account": wanted})
