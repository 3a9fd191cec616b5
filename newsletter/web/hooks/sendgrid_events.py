"""Where SendGrid posts its events: verified as raw bytes, stored, only then answered 2xx."""

import logging
from tempfile import SpooledTemporaryFile
from typing import IO

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from newsletter.provider.events import Event, Malformed, parse
from newsletter.web.dependencies import Parts
from subscribers.email_address import without_addresses

_log = logging.getLogger(__name__)
router = APIRouter()

#: SendGrid sends up to 768 KB; more than this is not SendGrid.
_MAX_BYTES = 4 * 1024 * 1024
#: Characters of what is wrong with an entry, in the log.
_MAX_REASON = 200
#: More than this of a post goes to disk while it comes in.
_IN_MEMORY = 64 * 1024
_SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
_TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"


@router.post("/webhooks/sendgrid/events", max_body_size=_MAX_BYTES)
async def events(request: Request, parts: Parts) -> dict[str, int]:
    """One post of events. 401 when its signature does not hold, 400 for what is no list."""
    # Nobody knows yet who posts: what many strangers send at once is not kept in memory.
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as kept:
        async for chunk in request.stream():
            kept.write(chunk)
        return await run_in_threadpool(_take, parts, request.headers, kept)


def _take(parts: Parts, headers: Headers, kept: IO[bytes]) -> dict[str, int]:
    kept.seek(0)
    body = kept.read()
    signature, timestamp = headers.get(_SIGNATURE, ""), headers.get(_TIMESTAMP, "")
    if not parts.verifier.verify(body, signature=signature, timestamp=timestamp):
        _log.warning("a post of events was refused: its signature does not hold")
        raise HTTPException(401, "The signature does not hold for this body.")
    try:
        entries = parse(body, base_url=parts.settings.site.base_url)
    except ValueError as error:
        raise HTTPException(400, f"Not a list of events: {error}") from None
    malformed = [entry for entry in entries if isinstance(entry, Malformed)]
    if malformed:
        first = malformed[0]
        said = without_addresses(first.reason)[:_MAX_REASON]
        # One line a post, however many there are: a log that fills a disk stops the service.
        _log.warning(
            "%s of %s entries of a post are no events; the first is entry %s: %r",
            len(malformed),
            len(entries),
            first.index,
            said,
        )
    done = parts.ingest([entry for entry in entries if isinstance(entry, Event)])
    return {"new": done.new, "repeated": done.repeated, "malformed": len(malformed)}
