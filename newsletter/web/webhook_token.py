"""OAuth 2.0 for the event webhook, where the operator wants it beside the signature.

SendGrid is given an id and a secret, trades them here for a token (RFC 6749, section 4.4) and
brings that with each post. Tokens are signed and not stored; they end after an hour, and
with the secret that they were given for.
"""

import base64
import hmac
import logging
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final
from urllib.parse import parse_qs, unquote_plus

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.errors import LinkError
from newsletter.links import Purpose
from newsletter.web.dependencies import Parts
from subscribers import rate_limit

_log = logging.getLogger(__name__)
router = APIRouter()

PATH: Final = "/webhooks/sendgrid/token"
_LIFE: Final = timedelta(hours=1)
_MAX_BYTES = 8 * 1024
#: Wrong pairs from one network. A right one always passes, or a stranger behind the same
#: proxy could keep SendGrid out; guessing 32 characters is hopeless at any rate.
_WRONG, _WITHIN = 20, timedelta(minutes=15)


@router.post(PATH, max_body_size=_MAX_BYTES)
async def token(request: Request, parts: Parts) -> Response:
    """A token for SendGrid. 404 where none is wanted, 401 for a wrong pair, 429 for many."""
    if not parts.settings.sendgrid.webhook_client_id:
        raise HTTPException(404)
    body = (await request.body()).decode(errors="replace")
    try:
        fields = parse_qs(body, max_num_fields=20)
    except ValueError:
        return _answer(400, {"error": "invalid_request"})
    client_id, secret = _from_header(request.headers.get("authorization", "")) or (
        fields.get("client_id", [""])[0],
        fields.get("client_secret", [""])[0],
    )
    if not _is_ours(parts, client_id, secret):
        return await run_in_threadpool(_refused, parts, request)
    # A grant that is not named can only be the one that there is.
    if fields.get("grant_type", ["client_credentials"]) != ["client_credentials"]:
        return _answer(400, {"error": "unsupported_grant_type"})
    expires = datetime.now(UTC) + _LIFE
    made = parts.links.token(Purpose.WEBHOOK, _pair(parts), expires=expires)
    seconds = int(_LIFE.total_seconds())
    return _answer(200, {"access_token": made, "token_type": "Bearer", "expires_in": seconds})


def admits(parts: Container, authorization: str) -> bool:
    """Whether a post may come in: it brings a token of ours, or none is wanted."""
    if not parts.settings.sendgrid.webhook_client_id:
        return True
    scheme, _, brought = authorization.partition(" ")
    try:
        claim = parts.links.read(brought.strip(), Purpose.WEBHOOK)
    except (LinkError, ValueError):
        return False
    return scheme.lower() == "bearer" and claim.numbers == (_pair(parts),)


def _pair(parts: Container) -> int:
    """A number that another id or another secret would change."""
    wanted = parts.settings.sendgrid
    text = f"{wanted.webhook_client_id}\0{wanted.webhook_client_secret.get_secret_value()}"
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest())


def _is_ours(parts: Container, client_id: str, secret: str) -> bool:
    wanted = parts.settings.sendgrid
    # Both are compared each time, and neither says by its time how much of it was right.
    right = (
        hmac.compare_digest(client_id.encode(errors="replace"), wanted.webhook_client_id.encode()),
        hmac.compare_digest(
            secret.encode(errors="replace"),
            wanted.webhook_client_secret.get_secret_value().encode(),
        ),
    )
    return all(right)


def _refused(parts: Container, request: Request) -> Response:
    network = rate_limit.network_of(request.client.host if request.client else "")
    key = rate_limit.key_of(parts.address_key, "webhook token", network)
    with transaction(parts.database) as session:
        now = datetime.now(UTC)
        if not rate_limit.hit(session, key, limit=_WRONG, window=_WITHIN, now=now):
            raise HTTPException(429, "Too many wrong ids or secrets came from there.")
    _log.warning("somebody asked for a token of the event webhook with a wrong id or secret")
    answer = _answer(401, {"error": "invalid_client"})
    answer.headers["WWW-Authenticate"] = "Basic"
    return answer


def _from_header(authorization: str) -> tuple[str, str] | None:
    """Id and secret by HTTP Basic, each form-encoded (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        return "", ""
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def _answer(status: int, said: dict[str, object]) -> Response:
    return JSONResponse(said, status, headers={"Cache-Control": "no-store"})
