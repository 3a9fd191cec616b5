"""Adapter for SendGrid's SDK: sends emails, makes API requests, and verifies events' signatures.

The SDK has no timeout, follows redirects, raises urllib's errors besides its own, and its verifier
takes text instead of bytes. This module compensates for that.
"""

import base64
import binascii
import http.client
import logging
import re
import threading
import time
import urllib.error
import urllib.parse
from collections.abc import Mapping, Sequence
from datetime import timedelta
from email.message import Message
from typing import Any

import orjson
import python_http_client
import sendgrid
from python_http_client.exceptions import HTTPError
from sendgrid.helpers.eventwebhook import EventWebhook

from newsletter import metrics, tracing
from newsletter.errors import ProviderError
from newsletter.numbers import whole_number
from newsletter.provider import outcomes
from newsletter.provider.account import ForbiddenError, NoSuchError, TryAgainError
from newsletter.provider.gateway import Accepted, MailRequest, NotSent, Outcome, Refused, Unknown
from newsletter.provider.outcomes import Acceptance
from newsletter.provider.payload import encoded, payload
from newsletter.provider.transport import Exchange, Handler
from newsletter.settings.kinds import fits_header

# At DEBUG the SDK would log the API key and the recipients' addresses.
logging.getLogger("python_http_client").setLevel(logging.WARNING)

_AGAIN = "Try again in a minute. SendGrid may have received the request; repeating it does no harm."
#: The remedy for each status of a refusal.
_HINTS = {
    401: "Set sendgrid.api_key to a valid key.",
    403: "Give the API key this scope: in SendGrid, Settings, API Keys.",
    429: "Wait until SendGrid's rate limit is over, then try again.",
}
#: The remedy for all other errors.
_ELSE = "Check sendgrid.host, or try again in a minute."
#: The label of each outcome in the metrics.
_LABELS: dict[type[Outcome], str] = {
    Accepted: "accepted",
    Refused: "refused",
    NotSent: "not_sent",
    Unknown: "unknown",
}
#: The statuses of a successful API request.
_SUCCESS = (200, 201, 204)
_PERSONALIZATION = re.compile(r"personalizations\.(\d+)(?:\.|$)")


class SendGridGateway:
    """Sends by SendGrid's v3 API, or a server at ``host`` with this API. Threads may share it."""

    def __init__(self, *, api_key: str, host: str, timeout: timedelta) -> None:
        self._api_key = api_key
        self._host = host
        self._timeout = timeout.total_seconds()
        # The SDK's client changes its headers while it works, so each thread has its own.
        self._of_thread = threading.local()

    def send(self, request: MailRequest) -> Outcome:
        """Send the request; faults of the network and the provider are outcomes."""
        begun, begun_at = time.perf_counter(), tracing.now()
        outcome = self._send(request)
        duration, label = time.perf_counter() - begun, _LABELS[type(outcome)]
        metrics.PROVIDER_REQUESTS.observe(duration, outcome=label)
        if (batch := tracing.current_batch()) is not None:
            status = outcome.status if isinstance(outcome, Refused) else None
            status = 202 if isinstance(outcome, Accepted) else status
            batch.write_request(self._host, label, begun=begun_at, status=status)
        return outcome

    def _send(self, request: MailRequest) -> Outcome:
        # Checked first: after the request has begun, no error proves that it was not accepted.
        if not fits_header(self._api_key):
            return Refused(401, "not requested: this key has characters that no header can contain")
        body = encoded(payload(request))
        exchange = Exchange()
        try:
            response = self._client(exchange).client.mail.send.post(request_body=body)
        except HTTPError as error:
            return _answered(error)
        except Exception as error:  # noqa: BLE001 (any error becomes an outcome)
            return self._unanswered(error, exchange)
        if outcomes.of_status(response.status_code) is not Acceptance.ACCEPTED:
            return Unknown(f"{self._host} answered {response.status_code} instead of 202")
        return Accepted(response.headers.get("X-Message-Id"))

    def _unanswered(self, error: Exception, exchange: Exchange) -> Outcome:
        """See outcomes.NO_CONNECTION, NO_ANSWER and BROKEN_ANSWER."""
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, (str, OSError, http.client.HTTPException)):
            reason = _text_of(cause)
        else:
            # The error's text may contain parts of the request.
            reason = f"unexpected {type(cause).__name__}"
        if exchange.connected:
            return Unknown(f"no answer: {reason}")
        return NotSent(f"cannot reach SendGrid: {reason}")

    def ask(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: object = None
    ) -> Any:  # noqa: ANN401
        """See newsletter.provider.account.Ask."""
        sent = None if body is None else encoded(body)
        try:
            call = getattr(self._client(Exchange()).client._(path), method)
            response = call(query_params=query, request_body=sent)
            if response.status_code not in _SUCCESS:
                raise self._unexpected(path, f"{response.status_code} instead of {_SUCCESS[0]}")
            return orjson.loads(response.body) if response.body else None
        except HTTPError as error:
            refusal = _refusal(error, path)
        except orjson.JSONDecodeError:
            refusal = self._unexpected(path, "not JSON")
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            refusal = TryAgainError(
                f"no answer from {self._host}: {_text_of(cause)}", place=path, hint=_ELSE
            )
        except ValueError:
            # The error's text may contain the Authorization header.
            refusal = ProviderError(
                "the request is not valid",
                place=path,
                hint="Check sendgrid.host and sendgrid.api_key for invalid characters.",
            )
        # Outside the except blocks: the traceback of a cause could contain parts of the request.
        raise refusal

    def _unexpected(self, place: str, what: str) -> ProviderError:
        return ProviderError(
            f"unexpected answer: {what}",
            place=place,
            hint=f"Make sure that sendgrid.host ({self._host}) is SendGrid's. {_AGAIN}",
        )

    def _client(self, exchange: Exchange) -> sendgrid.SendGridAPIClient:
        client: sendgrid.SendGridAPIClient | None = getattr(self._of_thread, "client", None)
        if client is None:
            client = sendgrid.SendGridAPIClient(self._api_key, host=self._host)
            client.client = _Client(
                host=client.host,
                request_headers=client.client.request_headers,
                version=3,
                timeout=self._timeout,
            )
            # With this header, which SendGrid's own C# SDK sends too, the SDK takes text
            # that is already JSON instead of encoding an object with the slow encoder.
            client.client.request_headers["Content-Type"] = "application/json; charset=utf-8"
            self._of_thread.client = client
        client.client.exchange = exchange
        return client


class _Client(python_http_client.Client):  # type: ignore[misc]
    """The SDK's client with the connections of newsletter.provider.transport."""

    exchange: Exchange

    def _build_client(self, name: str | None = None) -> "_Client":
        """The client of a longer path. The SDK's own method would not use this class."""
        made = _Client(
            host=self.host,
            version=self._version,
            request_headers=self.request_headers,
            url_path=[*self._url_path, name] if name else self._url_path,
            append_slash=self.append_slash,
            timeout=self.timeout,
        )
        made.exchange = self.exchange
        return made

    def _make_request(self, opener: Any, request: Any, timeout: float | None = None) -> Any:  # noqa: ANN401
        opener.add_handler(Handler(self.exchange))
        return super()._make_request(opener, request, timeout=timeout)


def _refusal(error: HTTPError, place: str) -> ProviderError:
    status = int(error.status_code)
    reason, _ = _complaint(error.body)
    message = f"SendGrid answered {status}: {reason}"
    hint = _HINTS.get(status, _ELSE)
    if status in {400, 404}:
        return NoSuchError(message, place=place, hint=hint)
    if status == 403:
        return ForbiddenError(message, place=place, hint=hint)
    if status == 429 or status >= 500:
        again = TryAgainError(message, place=place, hint=hint)
        again.retry_after = _reset(error.headers) if status == 429 else None
        return again
    return ProviderError(message, place=place, hint=hint)


def _answered(error: HTTPError) -> Outcome:
    status = int(error.status_code)
    reason, place = _complaint(error.body)
    match outcomes.of_status(status):
        case Acceptance.NOT_ACCEPTED:
            return NotSent("SendGrid's rate limit is reached", _reset(error.headers))
        case Acceptance.REFUSED if match := _PERSONALIZATION.match(place):
            return Refused(status, reason, recipient=int(match[1]))
        case Acceptance.REFUSED:
            return Refused(status, reason, shared=place)
    return Unknown(f"SendGrid answered {status}: {reason}")


def _text_of(error: object) -> str:
    return str(error) or type(error).__name__


def _complaint(body: object) -> tuple[str, str]:
    """SendGrid's error message, and the field that it refers to."""
    try:
        first = orjson.loads(body if isinstance(body, (bytes, str)) else b"")["errors"][0]
        return str(first["message"])[:500], str(first.get("field") or "")
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
        return text.strip()[:200] or "no reason given", ""


def _reset(headers: Message) -> timedelta | None:
    """The wait in X-RateLimit-Reset, which SendGrid documents both as epoch and as seconds."""
    try:
        seconds = float(headers.get("X-RateLimit-Reset", ""))
    except ValueError:
        return None
    if seconds > 1_000_000_000:
        seconds -= time.time()
    # With the arguments in this order, NaN becomes 0.
    return timedelta(seconds=min(max(0.0, seconds), 3600.0))


class WebhookVerifier:
    """Verifies the signatures of SendGrid's posts with any of the keys.

    Raises ProviderError when a key is invalid.
    """

    def __init__(self, public_keys: Sequence[str], *, max_age: timedelta) -> None:
        self._max_age = max_age.total_seconds()
        self._verifier = EventWebhook()
        try:
            self._keys = [self._verifier.convert_public_key_to_ecdsa(key) for key in public_keys]
        except (ValueError, binascii.Error) as error:
            raise ProviderError(
                f"not a public key: {error}",
                place="sendgrid.webhook_public_keys",
                hint="Copy it from SendGrid: Event Webhook, Signature Verification, Public key.",
            ) from None

    def verify(self, body: bytes, *, signature: str, timestamp: str) -> bool:
        """Whether one of the keys signed ``timestamp`` and exactly these bytes, within max_age."""
        signed_at = whole_number(timestamp)
        if signed_at is None:
            return False
        try:
            text = body.decode()
            base64.b64decode(signature, validate=True)
        except ValueError:
            return False
        age = time.time() - signed_at
        if not -300 <= age <= self._max_age:
            return False
        return any(self._signed(text, signature, timestamp, key) for key in self._keys)

    def _signed(self, text: str, signature: str, timestamp: str, key: object) -> bool:
        try:
            return bool(self._verifier.verify_signature(text, signature, timestamp, key))
        except (ValueError, TypeError):
            # Base64 without a DER signature.
            return False
