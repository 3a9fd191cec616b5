"""Writes, signs and posts events as SendGrid does.

Source: the Event Webhook reference. The signature is ECDSA (P-256, SHA-256) over the timestamp
and the raw body, in base64 of DER.
"""

import base64
import logging
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from newsletter.sandbox.faults import Faults
from newsletter.sandbox.store import DueEvent, SandboxEmail, Store

_log = logging.getLogger(__name__)
_MAX_BYTES = 700_000  # SendGrid's posts have up to 768 KB
_MAX_WAIT = 60.0  # seconds; SendGrid retries for 24 hours

#: The sandbox's event kind → SendGrid's (event, further fields), where they differ.
_WIRE: dict[str, tuple[str, dict[str, Any]]] = {
    "deferred": ("deferred", {"response": "451 4.7.1 Try again later", "attempt": "1"}),
    "delivered": ("delivered", {"response": "250 2.0.0 OK", "tls": 1}),
    "bounce": (
        "bounce",
        {
            "type": "bounce",
            "status": "5.1.1",
            "reason": "550 5.1.1 The email account that you tried to reach does not exist.",
            "bounce_classification": "Invalid Address",
        },
    ),
    "blocked": (
        "bounce",
        {
            "type": "blocked",
            "status": "4.7.0",
            "reason": "421 4.7.0 Our system has detected unusual mail from your address.",
            "bounce_classification": "Reputation",
        },
    ),
    "machine_open": ("open", {"sg_machine_open": True, "sg_content_type": "html"}),
    "open": ("open", {"sg_machine_open": False, "sg_content_type": "html"}),
}
_AGENT = "Mozilla/5.0 (sandbox)"


def body(
    mail: SandboxEmail, kind: str, *, at: float, reason: str = "", url: str = ""
) -> dict[str, Any]:
    """One event. Custom args are at the top level; SendGrid's own fields override them."""
    name, more = _WIRE.get(kind, (kind, {}))
    event: dict[str, Any] = {
        **mail.body.get("custom_args", {}),
        **mail.part.get("custom_args", {}),
        "email": mail.email,
        "timestamp": int(at),
        "smtp-id": f"<{mail.message_id}@sandbox>",
        "event": name,
        "sg_event_id": base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode(),
        "sg_message_id": f"{mail.message_id}.sandbox-0.{mail.number}",
        **more,
    }
    if mail.body.get("categories"):
        event["category"] = mail.body["categories"]
    if mail.body.get("asm"):
        event["asm_group_id"] = mail.body["asm"]["group_id"]
    if reason:
        event["reason"] = reason
    if kind == "click":
        event["url"] = url
    if kind in {"open", "machine_open", "click", "unsubscribe", "group_unsubscribe"}:
        event |= {"useragent": _AGENT, "ip": "127.0.0.1"}
    return event


class Signer:
    """Signs posts with a key pair that is new in each run."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        der = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        #: Base64 DER, as SendGrid shows it.
        self.public_key = base64.b64encode(der).decode()

    def headers(self, payload: bytes) -> dict[str, str]:
        """The two headers of a signed post."""
        stamp = str(int(time.time()))
        signature = self._key.sign(stamp.encode() + payload, ec.ECDSA(hashes.SHA256()))
        return {
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
        }


class Poster:
    """A thread that posts due events. They wait in the store and not in memory."""

    def __init__(
        self,
        store: Store,
        signer: Signer,
        faults: Faults,
        *,
        batch: int,
        one_click: Callable[[int], int],
    ) -> None:
        self._store, self._signer, self._faults = store, signer, faults
        self._batch = batch
        self._one_click = one_click
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-events")
        self.url: str | None = None
        self.posts, self.failed = 0, 0

    def start(self) -> None:
        """Start posting."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current post."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait or 0.05):
            due = self._store.due(self._batch)
            wait = 0.0
            if not due:
                continue
            clicks = [event for event in due if event.kind == "oneclick"]
            for event in clicks:
                self._one_click(event.mail_id)
            self._store.posted(clicks)
            events = [event for event in due if event.kind != "oneclick"]
            if not events or self.url is None or self._post(events):
                self._store.posted(events)
            else:
                self.failed += 1
                wait = min(_MAX_WAIT, 0.25 * 2 ** min(self.failed, 8))

    def _post(self, events: Sequence[DueEvent]) -> bool:
        bodies = [event.body for event in events]
        if self._faults.happens("webhook_duplicates"):
            bodies += bodies
        if self._faults.happens("webhook_new_ids"):
            bodies += [_with_new_id(text) for text in bodies]
        payload = ("[" + ",".join(bodies) + "]\r\n").encode()
        assert len(payload) < 8 * _MAX_BYTES
        return self._deliver(payload)

    def _deliver(self, payload: bytes) -> bool:
        assert self.url is not None
        headers = {"Content-Type": "application/json", **self._signer.headers(payload)}
        request = urllib.request.Request(self.url, payload, headers)  # noqa: S310 (checked when set)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                self.posts += 1
                return bool(200 <= answer.status < 300)
        except (urllib.error.URLError, OSError) as error:
            _log.info("the webhook did not take the events; they are posted again: %s", error)
            return False


def _with_new_id(text: str) -> str:
    event = orjson.loads(text)
    event["sg_event_id"] = uuid.uuid4().hex
    return orjson.dumps(event).decode()


def one_click(url: str) -> int:
    """POST as an email client does (RFC 8058), to this machine only; the status, 0 for none."""
    if urlsplit(url).hostname not in {"127.0.0.1", "localhost", "::1"}:
        return 0
    request = urllib.request.Request(  # noqa: S310 (loopback only)
        url,
        b"List-Unsubscribe=One-Click",
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, as an email client does."""

    def redirect_request(self, *_: object) -> None:
        """Do not follow."""
