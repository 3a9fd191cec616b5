"""Validates a POST /v3/mail/send by SendGrid's documented limits, with its error messages.

Source: Twilio's OpenAPI for v3 Mail Send and its page of errors. Where the two differ, the
narrower limit holds. A field that this sandbox does not support is refused as well, because it
would seem to work if it were ignored.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from newsletter.sandbox.tracking_settings import BYPASSES

_ADDRESS = re.compile(r"[^@\s<>,;]+@[A-Za-z0-9.-]+\.[A-Za-z0-9-]{2,}")
_MAX_PERSONALIZATIONS = 1000
_MAX_BYTES_PER_PERSON = 10_000
_MAX_SUBSTITUTIONS = 150
_MAX_CATEGORIES = 10
_MAX_CATEGORY = 255
_RESERVED_HEADERS = frozenset(
    {
        "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type",
        "content-transfer-encoding", "to", "from", "subject", "reply-to", "cc", "bcc",
    }
)  # fmt: skip
#: The lists of recipients of a personalization.
RECIPIENTS = ("to", "cc", "bcc")
#: Fields of a request and of a personalization, and settings, that SendGrid has and this sandbox
#: does not support.
_NOT_SUPPORTED = (
    "attachments", "template_id", "sections", "ip_pool_name", "reply_to_list", "send_at", "batch_id"
)  # fmt: skip
_NOT_SUPPORTED_OF_ONE = ("from", "send_at", "dynamic_template_data")
_NOT_SUPPORTED_SETTINGS = {
    "mail_settings": ("bcc", "footer", "spam_check"),
    "tracking_settings": ("ganalytics",),
}
#: The fields of each setting besides ``enable``.
_SETTINGS: Mapping[str, Mapping[str, Mapping[str, type]]] = {
    "mail_settings": {name: {} for name in (*BYPASSES, "sandbox_mode")},
    "tracking_settings": {
        "click_tracking": {"enable_text": bool},
        "open_tracking": {"substitution_tag": str},
        "subscription_tracking": {"text": str, "html": str, "substitution_tag": str},
    },
}
#: The one unsubscribe group of the account.
GROUP_ID = 1


@dataclass(frozen=True, slots=True)
class Complaint:
    """One of the ``errors`` of a refusal."""

    message: str
    field: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As SendGrid writes it."""
        return {"message": self.message, "field": self.field, "help": None}


def complaints(body: Any) -> list[Complaint]:  # noqa: ANN401 (any JSON may come)
    """The errors of a request, as SendGrid reports them; empty when it is accepted."""
    if not isinstance(body, dict):
        return [Complaint("Bad Request")]
    return list(_of_request(body))


def _of_request(body: Mapping[str, Any]) -> Iterator[Complaint]:
    yield from _of_sender(body.get("from"))
    personalizations = body.get("personalizations")
    if not isinstance(personalizations, list) or not personalizations:
        yield Complaint(
            "The personalizations field is required and must have at least one personalization.",
            "personalizations",
        )
        return
    if len(personalizations) > _MAX_PERSONALIZATIONS:
        yield Complaint(
            f"The personalization block is limited to {_MAX_PERSONALIZATIONS} personalizations "
            f"per API request. You have provided {len(personalizations)} personalizations. Please "
            "consider splitting this into multiple requests and resending your request.",
            "personalizations",
        )
        return
    yield from _of_subjects(body, personalizations)
    yield from _of_content(body.get("content"))
    yield from _of_reply_to(body.get("reply_to"))
    yield from _of_headers(body.get("headers"), "headers")
    yield from _of_strings(body.get("custom_args"), "custom_args", may_be_empty=False)
    yield from _of_categories(body.get("categories"))
    yield from _of_group(body.get("asm"))
    for name in _SETTINGS:
        yield from _of_settings(body.get(name), name)
    yield from _not_supported(body, _NOT_SUPPORTED, "")
    total, shared = 0, body.get("custom_args")
    for index, person in enumerate(personalizations):
        yield from _of_person(person, f"personalizations.{index}", shared)
        total += len(_addresses(person)) if isinstance(person, dict) else 0
    if total > _MAX_PERSONALIZATIONS:
        yield Complaint(
            "There is a limit of 1000 total recipients (to + cc + bcc) per request.",
            "personalizations",
        )


def _of_sender(sender: object) -> Iterator[Complaint]:
    if not isinstance(sender, dict) or not sender.get("email"):
        yield Complaint(
            "The from object must be provided for every email send. It is an object that "
            "requires the email parameter, but may also contain a name parameter.",
            "from.email",
        )
    elif not _is_address(sender["email"]):
        yield Complaint("The from email does not contain a valid address.", "from.email")
    elif not isinstance(sender.get("name", ""), str):
        yield Complaint("The name must be a string.", "from.name")


def _of_subjects(body: Mapping[str, Any], personalizations: list[Any]) -> Iterator[Complaint]:
    subjects = [person.get("subject") for person in personalizations if isinstance(person, dict)]
    for place, subject in (("subject", body.get("subject")), *(
        (f"personalizations.{n}.subject", one) for n, one in enumerate(subjects)
    )):  # fmt: skip
        if subject is not None and (not isinstance(subject, str) or not subject):
            yield Complaint(
                "The subject of your email must be a string at least one character in length.",
                place,
            )
    if not body.get("subject") and not all(subjects):
        yield Complaint(
            "The subject is required. You can get around this requirement if you use a template "
            "with a subject defined or if every personalization has a subject defined.",
            "subject",
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
        kind, value = (part.get("type"), part.get("value")) if isinstance(part, dict) else (0, 0)
        if not isinstance(kind, str) or not kind:
            yield Complaint(
                "Your content type must be a string with length of at least one character.",
                f"content.{index}.type",
            )
        elif re.search(r"[;\r\n]", kind):
            yield Complaint("Cannot contain ';', or CRLF characters.", f"content.{index}.type")
        if not isinstance(value, str) or not value:
            yield Complaint(
                "The content value must be a string at least one character in length.",
                f"content.{index}.value",
            )
    kinds = [part.get("type") for part in content if isinstance(part, dict)]
    ordered = sorted(kinds, key=lambda kind: {"text/plain": 0, "text/html": 1}.get(str(kind), 2))
    if kinds != ordered:
        yield Complaint(
            "Following RFC 1341, section 7.2, if either text/html or text/plain are to be sent in "
            "your email: text/plain needs to be first, followed by text/html, followed by any "
            "other content.",
            "content",
        )


def _of_reply_to(reply_to: object) -> Iterator[Complaint]:
    if reply_to is None:
        return
    if not isinstance(reply_to, dict) or not _is_address(reply_to.get("email")):
        yield Complaint(
            "The reply_to object, when used, must at least have an email parameter with a valid "
            "email address and it may also contain a name parameter.",
            "reply_to.email",
        )


def _of_categories(categories: object) -> Iterator[Complaint]:
    if categories is None:
        return
    if not isinstance(categories, list) or not all(isinstance(c, str) for c in categories):
        yield Complaint("Categories must be an array of strings.", "categories")
        return
    if len(categories) > _MAX_CATEGORIES:
        yield Complaint(
            f"There is a limit of {_MAX_CATEGORIES} categories for each email that is sent. You "
            f"provided {len(categories)} categories.",
            "categories",
        )
    for index, category in enumerate(categories):
        place = f"categories.{index}"
        if len(category) > _MAX_CATEGORY:
            yield Complaint(
                f"Each category must not be longer than {_MAX_CATEGORY} characters. {category} "
                "exceeds this limit.",
                place,
            )
        if category in categories[:index]:
            yield Complaint(
                "The categories must be a unique list, and you have included "
                f"{category} more than once.",
                place,
            )
        if not category.isascii():
            yield Complaint("Categories can not contain non-ASCII characters.", place)


def _of_group(asm: object) -> Iterator[Complaint]:
    if asm is None:
        return
    group = asm.get("group_id") if isinstance(asm, dict) else None
    shown = asm.get("groups_to_display") if isinstance(asm, dict) else None
    if type(group) is not int:
        yield Complaint("The ASM group ID must be an integer.", "asm.group_id")
    elif group != GROUP_ID:
        yield Complaint(
            f"The ASM group ID must be a valid Group ID on your account. You provided {group}.",
            "asm.group_id",
        )
    if shown is not None and (
        not isinstance(shown, list) or not all(type(one) is int for one in shown)
    ):
        yield Complaint(
            "The ASM Group IDs to display must be an array of integers.", "asm.groups_to_display"
        )
    elif shown and set(shown) != {GROUP_ID}:
        yield Complaint(
            "All ASM groups to display must be valid ASM groups IDs on your account.",
            "asm.groups_to_display",
        )


def _of_settings(settings: object, name: str) -> Iterator[Complaint]:
    if settings is None:
        return
    if not isinstance(settings, dict):
        yield Complaint(f"The {name} must be an object.", name)
        return
    for setting, more in _SETTINGS[name].items():
        value = settings.get(setting)
        if value is None:
            continue
        words = setting.replace("_", " ")
        if not isinstance(value, dict):
            yield Complaint(f"The {words} must be an object.", f"{name}.{setting}")
            continue
        if type(value.get("enable", False)) is not bool:
            yield Complaint(
                f"The {words} enable param should be a boolean value.", f"{name}.{setting}.enable"
            )
        for key, kind in more.items():
            if value.get(key) is not None and type(value[key]) is not kind:
                should_be = "boolean value" if kind is bool else "string"
                yield Complaint(
                    f"The {words} {key.replace('_', ' ')} must be a {should_be}.",
                    f"{name}.{setting}.{key}",
                )
    bypasses = [one for one in BYPASSES if _enabled(settings.get(one))]
    if "bypass_list_management" in bypasses and len(bypasses) > 1:
        yield Complaint(
            "The bypass_list_management setting cannot be combined with another bypass setting.",
            f"{name}.bypass_list_management",
        )
    asked = [one for one in _NOT_SUPPORTED_SETTINGS[name] if _enabled(settings.get(one))]
    yield from _not_supported(settings, asked, f"{name}.")


def _enabled(setting: object) -> bool:
    return isinstance(setting, dict) and setting.get("enable") is True


def _not_supported(
    given: Mapping[str, Any], names: Sequence[str], before: str
) -> Iterator[Complaint]:
    for name in names:
        if given.get(name) is not None:
            yield Complaint(f"This sandbox does not support {before}{name}.", f"{before}{name}")


def _of_person(person: Any, place: str, shared: object) -> Iterator[Complaint]:  # noqa: ANN401
    if not isinstance(person, dict) or not isinstance(person.get("to"), list) or not person["to"]:
        yield Complaint(
            "The to array is required for all personalization objects, and must have at least one "
            "email object with a valid email address.",
            f"{place}.to",
        )
        return
    yield from _of_recipients(person, place)
    own = person.get("custom_args")
    substitutions = person.get("substitutions")
    yield from _of_strings(substitutions, f"{place}.substitutions")
    if isinstance(substitutions, dict) and len(substitutions) > _MAX_SUBSTITUTIONS:
        yield Complaint(
            f"Substitutions are limited to {_MAX_SUBSTITUTIONS} items per personalization block.",
            f"{place}.substitutions",
        )
    yield from _of_strings(own, f"{place}.custom_args", may_be_empty=False)
    if isinstance(own, dict) and isinstance(shared, dict):
        # Every event contains both, so their sizes add up.
        yield from _of_strings({**shared, **own}, f"{place}.custom_args")
    yield from _of_headers(person.get("headers"), f"{place}.headers")
    yield from _not_supported(person, _NOT_SUPPORTED_OF_ONE, f"{place}.")


def _of_recipients(person: Mapping[str, Any], place: str) -> Iterator[Complaint]:
    seen: set[str] = set()
    for kind in RECIPIENTS:
        recipients = person.get(kind)
        if recipients is not None and not isinstance(recipients, list):
            yield Complaint(f"The {kind} must be an array.", f"{place}.{kind}")
            continue
        for index, recipient in enumerate(recipients or ()):
            email = recipient.get("email") if isinstance(recipient, dict) else None
            if not _is_address(email):
                yield Complaint(
                    "Does not contain a valid address.", f"{place}.{kind}.{index}.email"
                )
            elif email.lower() in seen:
                yield Complaint(
                    "Each email address in the personalization block should be unique between to, "
                    f"cc, and bcc. We found the first duplicate instance of [{email}] in the "
                    f"{place}.{kind} field.",
                    place,
                )
            else:
                seen.add(email.lower())


def _of_strings(
    values: Any,  # noqa: ANN401
    place: str,
    *,
    may_be_empty: bool = True,
) -> Iterator[Complaint]:
    if values is None:
        return
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        yield Complaint("Each value must be a string.", place)
    elif not values and not may_be_empty:
        yield Complaint("custom_args can't be empty.", place)
    elif sum(len(k.encode()) + len(v.encode()) for k, v in values.items()) > _MAX_BYTES_PER_PERSON:
        yield Complaint("May not exceed 10,000 bytes.", place)


def _of_headers(headers: Any, place: str) -> Iterator[Complaint]:  # noqa: ANN401
    if headers is None:
        return
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        yield Complaint("The header values must be strings.", place)
        return
    seen: set[str] = set()
    for name in headers:
        if name.lower() in seen:
            yield Complaint("The headers can't contain duplicate keys.", f"{place}.{name}")
        elif not name.isascii() or not name or " " in name:
            yield Complaint(
                "Header keys can't contain non-ASCII characters or empty spaces.",
                f"{place}.{name}",
            )
        elif name.lower() in _RESERVED_HEADERS:
            yield Complaint("Header can't be one of the reserved keys.", f"{place}.{name}")
        seen.add(name.lower())


def _addresses(person: Mapping[str, Any]) -> list[Any]:
    lists = (person.get(kind) or [] for kind in RECIPIENTS)
    return [one for recipients in lists if isinstance(recipients, list) for one in recipients]


def _is_address(email: object) -> TypeGuard[str]:
    return isinstance(email, str) and len(email) <= 320 and bool(_ADDRESS.fullmatch(email))
