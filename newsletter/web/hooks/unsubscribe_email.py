"""Unsubscribes by email: SendGrid's Inbound Parse posts each email to our mailbox.

A token from one of our emails identifies the subscriber. It is in the subject, because mail
servers may change the local part of an address to lower case. Without a token, the From address
counts only if DKIM or SPF passed for its domain, because anyone can forge it.
"""

import hashlib
import hmac
import logging
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import getaddresses

import orjson
from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException, MultiPartParser

from newsletter.db.engine import reading
from newsletter.errors import AddressError, LinkError
from newsletter.links import Purpose
from newsletter.tracking.events.unsubscribe import unsubscribe
from newsletter.web.dependencies import Parts
from subscribers.directory.search import id_by_hash
from subscribers.email_address import Address, parse

_log = logging.getLogger(__name__)
router = APIRouter()

#: Inbound Parse accepts emails of up to 30 MB with attachments.
_MAX_BYTES = 32 * 1024 * 1024
#: Bytes of a field in memory: text part, HTML part or headers. Attachments go to files.
_MAX_FIELD = 4 * 1024 * 1024
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,100}")
_UNSUBSCRIBE_WORD = re.compile(r"\bunsubscribe\b", re.IGNORECASE)
#: Must be the whole first line of the body, because a reply quotes our footer further down.
_FIRST_LINE = re.compile(r"(?:please\s+)?unsubscribe(?:\s+me)?(?:,?\s+please)?[.!]*", re.IGNORECASE)
_ANSWERED_BY_MACHINE = re.compile(r"^auto-submitted:\s*+(?!no\b)", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(r"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
#: ``{@example.com : pass}``, several separated by commas.
_DKIM = re.compile(r"@([^\s:{},@]{1,255})\s{0,9}:\s{0,9}pass\b", re.IGNORECASE)
#: Characters of a field with addresses, and of one address, that are read.
_MAX_LISTED, _MAX_ADDRESS = 2000, 1000


@router.post("/webhooks/sendgrid/inbound/{key}", max_body_size=_MAX_BYTES)
async def inbound(key: str, request: Request, parts: Parts) -> dict[str, str]:
    """Receive one email. 404 for a wrong key; else 200, so that SendGrid does not try again."""
    secret = parts.settings.inbound.key.get_secret_value()
    if not secret or not hmac.compare_digest(key.encode(errors="replace"), secret.encode()):
        raise HTTPException(404)
    fields = await _fields(request)
    return {"done": await run_in_threadpool(_act, parts, fields)}


def _act(parts: Parts, fields: Mapping[str, str]) -> str:
    """Unsubscribe the sender if the email asks for it; returns what was done."""
    headers = fields.get("headers", "")
    message_id = _MESSAGE_ID.search(headers)
    # Identifies the email, because SendGrid posts it again after a lost answer.
    email = (
        message_id[1] if message_id else f"{headers}\0{fields.get('subject')}\0{fields.get('from')}"
    )
    for token in _tokens(fields):
        try:
            issue_id, subscriber_id = parts.links.read(token, Purpose.RECIPIENT).numbers
        except LinkError:
            continue
        _unsubscribe(parts, subscriber_id, issue_id, email)
        return "unsubscribed"
    sender = _verified_sender(fields)
    if sender is None or not _asks_to_unsubscribe(parts.settings.inbound.address, fields, headers):
        return "nothing"
    hashed = parts.hash_of(sender.email)
    with reading(parts.database) as session:
        found = id_by_hash(session, hashed) if hashed else None
    if found is None:
        _log.info("an email asked to unsubscribe an address that is not a subscriber")
        return "nothing"
    _unsubscribe(parts, found, None, email)
    return "unsubscribed"


def _unsubscribe(parts: Parts, subscriber_id: int, issue_id: int | None, email: str) -> None:
    digest = hashlib.sha256(email.encode(errors="replace")).hexdigest()
    unsubscribe(
        parts.database,
        subscriber_id,
        issue_id,
        source="mailto",
        occurrence=f"mailto\0{subscriber_id}\0{digest}",
        now=datetime.now(UTC),
        hash_of=parts.hash_of,
    )


def _tokens(fields: Mapping[str, str]) -> Iterator[str]:
    """Possible tokens: words of the subject, then tags after a plus in the recipient."""
    yield from _TOKEN.findall(fields.get("subject", "")[:1000])
    for address in _recipients(fields):
        yield from _TOKEN.findall(address.rpartition("@")[0].partition("+")[2])


def _recipients(fields: Mapping[str, str]) -> list[str]:
    envelope = _json(fields.get("envelope", ""))
    to = envelope.get("to")
    listed = [str(address) for address in to[:20]] if isinstance(to, list) else []
    shown = [address for _, address in _addresses(fields.get("to", ""))]
    return [address[:_MAX_ADDRESS] for address in (*listed, *shown)][:20]


def _addresses(text: str) -> list[tuple[str, str]]:
    """The names and addresses of a header; none if its comments are nested too deeply."""
    try:
        return getaddresses([text[:_MAX_LISTED]])
    except RecursionError:
        return []


def _asks_to_unsubscribe(ours: str, fields: Mapping[str, str], headers: str) -> bool:
    """Whether a person, not a machine, wrote to our mailbox and asks to unsubscribe."""
    if not ours or _ANSWERED_BY_MACHINE.search(headers):
        return False
    if not any(_untagged(address) == _untagged(ours) for address in _recipients(fields)):
        return False
    lines = (line.strip() for line in fields.get("text", "")[:2000].splitlines())
    first = next((line for line in lines if line), "")
    subject = fields.get("subject", "")
    return bool(_UNSUBSCRIBE_WORD.search(subject) or _FIRST_LINE.fullmatch(first))


def _untagged(address: str) -> str:
    local, _, domain = address.strip().lower().rpartition("@")
    return f"{local.partition('+')[0]}@{domain}"


def _verified_sender(fields: Mapping[str, str]) -> Address | None:
    """The only address in From, if DKIM or SPF passed for its domain (as in DMARC)."""
    senders = _addresses(fields.get("from", ""))
    if len(senders) != 1:
        return None
    try:
        sender = parse(senders[0][1])
    except AddressError:
        return None
    verified = {found.lower() for found in _DKIM.findall(fields.get("dkim", "")[:_MAX_LISTED])}
    if fields.get("SPF", "").strip().lower() == "pass":
        # SPF verifies the return path, which must be in the domain of From.
        verified.add(
            str(_json(fields.get("envelope", "")).get("from", "")).rpartition("@")[2].lower()
        )
    agree = any(domain and f".{sender.domain}".endswith(f".{domain}") for domain in verified)
    return sender if agree else None


def _json(text: str) -> dict[str, object]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


async def _fields(request: Request) -> dict[str, str]:
    """The text fields of the post, without attachments."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "Inbound Parse posts multipart/form-data; is “raw” switched off?")
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=200, max_fields=100, max_part_size=_MAX_FIELD
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"Not a form: {error.message}") from None
    except (LookupError, ValueError):
        raise HTTPException(400, "Not a form: its parts cannot be read.") from None
    try:
        return {name: value for name, value in form.multi_items() if isinstance(value, str)}
    finally:
        await form.close()
