"""The setup of the account, as SendGrid's API shows it. By default it is healthy.

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
#: A new SendGrid account tracks clicks and opens.
_TRACKING = {"click": True, "open": True, "subscription": False, "google_analytics": False}
_WEBHOOK_ID = "sandbox"


def tracks(overrides: Mapping[str, Any], what: str) -> bool:
    """Whether the account tracks ``what`` for emails without a setting of their own."""
    setting = overrides.get(f"tracking_settings/{what}")
    return bool(setting.get("enabled")) if isinstance(setting, dict) else _TRACKING.get(what, False)


class SandboxState(Protocol):
    """The parts of a running sandbox that the account shows."""

    config: SandboxConfig
    poster: Poster
    account: dict[str, Any]

    @property
    def public_key(self) -> str:
        """The key that verifies its events."""
        ...


def routes(
    sandbox: SandboxState, authorised: Callable[[Request], Response | None]
) -> Iterable[Route]:
    """The routes that `newsletter doctor` reads, and one that changes their answers."""
    account = _Account(sandbox)

    def guarded(
        answer: Callable[[Request], object],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            if refusal := authorised(request):
                return refusal
            path = request.url.path.removeprefix("/v3/")
            override = sandbox.account.get(path, ...)
            if isinstance(override, int):
                return errors(override, Complaint("access forbidden"))
            return JSONResponse(answer(request) if override is ... else override)

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
    """The answers of a healthy account."""

    def __init__(self, sandbox: SandboxState) -> None:
        self._sandbox = sandbox

    def scopes(self, _request: Request) -> object:
        """The scopes of the API key: all that this product uses."""
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
        """The hosts that receive email: none."""
        return {"result": []}

    def domains(self, request: Request) -> object:
        """The requested domain, if its addresses may send."""
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
        """Whether the account tracks it."""
        return {"enabled": tracks({}, request.path_params["what"])}

    async def change(self, request: Request) -> Response:
        """Replace answers: an object of path → JSON, or → error status; {} removes them."""
        try:
            overrides = orjson.loads(await request.body() or b"{}")
        except orjson.JSONDecodeError:
            overrides = None
        if not isinstance(overrides, dict):
            return errors(400, Complaint("Send a JSON object."))
        self._sandbox.account = overrides
        return JSONResponse({"account": overrides})
