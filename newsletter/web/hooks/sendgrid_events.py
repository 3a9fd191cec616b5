"""The webhook for SendGrid's events: verifies the raw bytes and stores them before the answer."""

import logging
from collections import Counter
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import IO

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from newsletter import metrics
from newsletter.provider.events import Event, Malformed, parse
from newsletter.tracking.events.ingest import IngestReport
from newsletter.web.dependencies import Parts
from subscribers.email_address import without_addresses

_log = logging.getLogger(__name__)
router = APIRouter()

#: SendGrid posts up to 768 KB.
_MAX_BYTES = 4 * 1024 * 1024
#: Characters of an entry's error in the log.
_MAX_REASON = 200
#: Bytes of a post that are kept in memory while it is received; the rest goes to disk.
_IN_MEMORY = 64 * 1024
_SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
_TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"


@router.post("/webhooks/sendgrid/events", max_body_size=_MAX_BYTES)
async def events(request: Request, parts: Parts) -> dict[str, int]:
    """Receive a list of events. 401 for an invalid signature, 400 if it is not a list."""
    # The sender is not verified yet, so large posts of strangers must not fill the memory.
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        async for chunk in request.stream():
            file.write(chunk)
        return await run_in_threadpool(_ingest, parts, request.headers, file)


def _ingest(parts: Parts, headers: Headers, file: IO[bytes]) -> dict[str, int]:
    file.seek(0)
    body = file.read()
    signature, timestamp = headers.get(_SIGNATURE, ""), headers.get(_TIMESTAMP, "")
    if not parts.verifier.verify(body, signature=signature, timestamp=timestamp):
        _log.warning("a post of events was refused: its signature is not valid")
        metrics.WEBHOOK_POSTS.add(result="bad_signature")
        raise HTTPException(401, "The signature is not valid for this body.")
    try:
        entries = parse(body, base_url=parts.settings.site.base_url)
    except ValueError as error:
        metrics.WEBHOOK_POSTS.add(result="not_events")
        raise HTTPException(400, f"Not a list of events: {error}") from None
    malformed = [entry for entry in entries if isinstance(entry, Malformed)]
    if malformed:
        first = malformed[0]
        reason = without_addresses(first.reason)[:_MAX_REASON]
        # One line per post, so that many invalid entries cannot fill the disk with logs.
        _log.warning(
            "%s of %s entries of a post are not valid events; the first is entry %s: %r",
            len(malformed),
            len(entries),
            first.index,
            reason,
        )
    done = parts.ingest([entry for entry in entries if isinstance(entry, Event)])
    _count(done)
    return {"new": done.new, "repeated": done.repeated, "malformed": len(malformed)}


def _count(done: IngestReport) -> None:
    """Count what a post brought, which is committed."""
    now = datetime.now(UTC)
    metrics.WEBHOOK_POSTS.add(result="accepted")
    for kind, number in Counter(event.kind for event in done.added).items():
        metrics.WEBHOOK_EVENTS.add(number, kind=kind.value)
    for event in done.added:
        metrics.WEBHOOK_LAG.observe(max(0.0, (now - event.at).total_seconds()))
