"""Whether a POST /v3/mail/send is taken, by SendGrid's documented limits, and in its words.

Source: Twilio's OpenAPI for v3 Mail Send and its error pages. Only what this product
can send is looked at; what is not looked at is taken.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

_ADDRESS = re.compile(r"[^@\s<>,;]+@[A-Za-z0-9.-]+\.[A-Za-z0-9-]{2,}")
_MAX_PERSONALIZATIONS = 1000
_MAX_BYTES_PER_PERSON = 10_000
#: So far ahead a mail is taken, and so long after its time a paused one is kept: seconds.
LONGEST_HOLD = 72 * 3600
#: So long a batch id is good: seconds.
BATCH_LIFE = 10 * 24 * 3600
_FORBIDDEN_HEADERS = frozenset(
    {
        "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type",
        "content-transfer-encoding", "to", "from", "subject", "reply-to", "cc", "bcc",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Complaint:
    """One of the ``errors`` of a refusal."""

    message: str
    field: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As SendGrid writes it."""
        return {"message": self.message, "field": self.field, "help": None}


def complaints(body: Any) -> list[Complaint]:  # noqa: ANN401 (any JSON may come)
    """What is wrong with a request, as SendGrid would say; empty when it is taken."""
    if not isinstance(body, dict):
        return [Complaint("Bad Request")]
    return list(_of_request(body))


def _of_request(body: Mapping[str, Any]) -> Iterator[Complaint]:
    sender = body.get("from")
    if not isinstance(sender, dict) or not sender.get("email"):
        yield Complaint(
            "The from object must be provided for every email send. It is an object that "
            "requires the email parameter, but may also contain a name parameter.",
            "from.email",
        )
    elif not _is_address(sender["email"]):
        yield Complaint("The from email does not contain a valid address.", "from.email")
    people = body.get("personalizations")
    if not isinstance(people, list) or not people:
        yield Complaint(
            "The personalizations field is required and must have at least one personalization.",
            "personalizations",
        )
        return
    if len(people) > _MAX_PERSONALIZATIONS:
        yield Complaint(
            f"You may not have more than {_MAX_PERSONALIZATIONS} personalizations per request.",
            "personalizations",
        )
        return
    if not body.get("subject") and not all(
        isinstance(p, dict) and p.get("subject") for p in people
    ):
        yield Complaint(
            "The subject is required. You can get around this requirement if you use a template "
            "with a subject defined or if every personalization has a subject defined.",
            "subject",
        )
    yield from _of_content(body.get("content"))
    yield from _of_headers(body.get("headers"), "headers")
    yield from _of_strings(body.get("custom_args"), "custom_args")
    yield from _of_schedule(body)
    total = 0
    for index, person in enumerate(people):
        yield from _of_person(person, f"personalizations.{index}")
        total += len(_addresses(person)) if isinstance(person, dict) else 0
    if total > _MAX_PERSONALIZATIONS:
        yield Complaint(
            "You may not have more than 1000 recipients per request.", "personalizations"
        )


def _of_content(content: Any) -> Iterator[Complaint]:  # noqa: ANN401
    if not isinstance(content, list) or not content:
        yield Complaint(
            "Unless a valid template_id is provided, the content parameter is required. There "
            "must be at least one defined content block.",
            "content",
        )
        return
    for index, part in enumerate(content):
        if (
            not isinstance(part, dict)
            or not isinstance(part.get("value"), str)
            or not part["value"]
        ):
            yield Complaint(
                "The content value must be a string at least one character in length.",
                f"content.{index}.value",
            )
    kinds = [part.get("type") for part in content if isinstance(part, dict)]
    if "text/plain" in kinds[1:]:
        yield Complaint(
            "If present, text/plain must be first, followed by text/html, followed by any other "
            "content.",
            "content",
        )


def _of_schedule(body: Mapping[str, Any]) -> Iterator[Complaint]:
    send_at = body.get("send_at")
    if send_at is not None and type(send_at) is not int:
        yield Complaint(
            "The send_at parameter is expecting a Unix timestamp as an integer. We will send "
            "immediately if you include a send_at timestamp that is in the past.",
            "send_at",
        )
    elif send_at is not None and send_at > time.time() + LONGEST_HOLD:
        yield Complaint("Scheduling more than 72 hours in advance is forbidden.", "send_at")
    if not isinstance(body.get("batch_id", ""), str):
        yield Complaint("The batch_id must be a string.", "batch_id")


def _of_person(person: Any, place: str) -> Iterator[Complaint]:  # noqa: ANN401
    if not isinstance(person, dict) or not isinstance(person.get("to"), list) or not person["to"]:
        yield Complaint("The to array is required for all personalization objects.", f"{place}.to")
        return
    seen: set[str] = set()
    for index, recipient in enumerate(person["to"]):
        email = recipient.get("email") if isinstance(recipient, dict) else None
        if not _is_address(email):
            yield Complaint("Does not contain a valid address.", f"{place}.to.{index}.email")
        elif email.lower() in seen:
            yield Complaint(
                "Each email address in the personalization block should be unique between to, cc, "
                "and bcc.",
                place,
            )
        else:
            seen.add(email.lower())
    for name in ("substitutions", "custom_args"):
        yield from _of_strings(person.get(name), f"{place}.{name}")
    yield from _of_headers(person.get("headers"), f"{place}.headers")


def _of_strings(values: Any, place: str) -> Iterator[Complaint]:  # noqa: ANN401
    if values is None:
        return
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        yield Complaint("Each value must be a string.", place)
    elif sum(len(k.encode()) + len(v.encode()) for k, v in values.items()) > _MAX_BYTES_PER_PERSON:
        yield Complaint("May not exceed 10,000 bytes.", place)


def _of_headers(headers: Any, place: str) -> Iterator[Complaint]:  # noqa: ANN401
    yield from _of_strings(headers, place)
    for name in headers if isinstance(headers, dict) else ():
        if name.lower() in _FORBIDDEN_HEADERS:
            yield Complaint(f"The header {name} may not be set.", f"{place}.{name}")


def _addresses(person: Mapping[str, Any]) -> list[Any]:
    lists = (person.get(kind) or [] for kind in ("to", "cc", "bcc"))
    return [recipient for recipients in lists for recipient in recipients]


def _is_address(email: object) -> TypeGuard[str]:
    return isinstance(email, str) and len(email) <= 320 and bool(_ADDRESS.fullmatch(email))
