"""What a column of somebody's file means: a known field of a person, or an attribute.

Names are compared without case, spaces and punctuation. The exports of other products
are told by columns that only they have.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from subscribers import own_export
from subscribers.models import SuppressionReason
from subscribers.rows import (
    SUBSCRIBED,
    Row,
    UnfitError,
    checked_name,
    json_object,
    language,
    listed,
    moment,
    status,
    timezone,
)

ReadCells = Callable[[list[str], int], Row]

_ROLES = {
    word: role
    for role, words in {
        "email": "email emailaddress mail emailadresse",
        "name": "name fullname",
        "first": "firstname fname givenname",
        "last": "lastname lname surname familyname",
        "language": "language lang",
        "timezone": "timezone tz",
        "topics": "topics topic",
        "tags": "tags",
        "created_at": "createdat",
        "confirmed_at": "confirmedat",
        "status": "status",
        "attributes": "attributes attribs",
    }.items()
    for word in words.split()
}
EXPECTED = "email, e-mail or email address"

_MAILCHIMP_SIGNS = frozenset({"leid", "euid", "memberrating"})
_MAILCHIMP_ROLES = {
    "optintime": "created_at",
    "confirmtime": "confirmed_at",
    "optinip": "optin_ip",
    "confirmip": "confirm_ip",
    "unsubtime": "left_at",
    "unsubreason": "left_why",
    "cleantime": "cleaned_at",
    "cc": "=country",
    # Mailchimp's own bookkeeping, and guesses from the IP address.
    **dict.fromkeys(("leid", "euid", "lastchanged", "latitude", "longitude"), ""),
    **dict.fromkeys(("gmtoff", "dstoff", "unsubcampaigntitle", "unsubcampaignid"), ""),
    **dict.fromkeys(("unsubreasonother", "cleancampaigntitle", "cleancampaignid"), ""),
}
_LISTMONK = frozenset({"uuid", "email", "name", "attributes", "status"})
_LISTMONK_ROLES = {"uuid": "", "updatedat": ""}
_SUBSTACK = frozenset({"email", "activesubscription", "expiry", "createdat"})
_SUBSTACK_ROLES = {"emaildisabled": "email_disabled", "activesubscription": "=active_subscription"}
_BOOLEANS = {"true": True, "false": False}


def role_of(name: str) -> str | None:
    """The field that a column or key of this name holds."""
    return _ROLES.get(_plain(name))


def attribute_key(name: str, number: int = 0) -> str:
    """The attribute that a column of this name becomes: ``[a-z][a-z0-9_]*``."""
    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    key = re.sub(r"[^a-z0-9]+", "_", folded).strip("_")
    if not key:
        return f"column_{number}"
    return key if key[0].isalpha() else f"column_{key}"


def reader_of(header: Sequence[str]) -> tuple[str, ReadCells] | None:
    """Whose export has this header, and how its lines are read; None without addresses."""
    if own_export.is_own(header):
        return "newsletter", own_export.from_cells(header, attribute_key)
    kind, plain, special = _told(header)
    places, attributes = _places(header, plain, special)
    if "email" not in places:
        return None
    return kind, _builder(kind, places, attributes)


def meanings(header: Sequence[str]) -> list[tuple[str, str]]:
    """Each column with what becomes of it: a field's name, ``attribute NAME``, or nothing."""
    if own_export.is_own(header):
        return [(name, name) for name in header]
    _, plain, special = _told(header)
    places, attributes = _places(header, plain, special)
    meant = {number: role.replace("_", " ") for role, number in places.items()}
    meant |= {number: f"attribute {key}" for key, number in attributes}
    return [(name, meant.get(number, "")) for number, name in enumerate(header)]


def _told(header: Sequence[str]) -> tuple[str, list[str], dict[str, str]]:
    """Whose export has this header, its columns' plain names, and what those mean there."""
    plain = [_plain(name) for name in header]
    known = frozenset(plain)
    if _MAILCHIMP_SIGNS & known:
        return "Mailchimp", plain, _MAILCHIMP_ROLES
    if known >= _LISTMONK:
        return "listmonk", plain, _LISTMONK_ROLES
    if known >= _SUBSTACK:
        return "Substack", plain, _SUBSTACK_ROLES
    return "CSV", plain, {}


def _places(
    header: Sequence[str], plain: list[str], special: dict[str, str]
) -> tuple[dict[str, int], list[tuple[str, int]]]:
    """Role → column, and the attributes of the other columns."""
    places: dict[str, int] = {}
    attributes: dict[str, int] = {}
    #: Name → the number that the next column of the same name gets.
    repeated: dict[str, int] = {}
    for number, (name, word) in enumerate(zip(header, plain, strict=True)):
        role = special.get(word, _ROLES.get(word))
        if role == "":
            continue
        if role and not role.startswith("=") and role not in places:
            places[role] = number
            continue
        key = role[1:] if role and role.startswith("=") else attribute_key(name, number + 1)
        unique, again = key, repeated.get(key, 2)
        while unique in attributes:
            unique, again = f"{key}_{again}", again + 1
        repeated[key] = again
        attributes[unique] = number
    return places, list(attributes.items())


def _builder(kind: str, places: dict[str, int], attributes: list[tuple[str, int]]) -> ReadCells:
    """One closure for every format: this runs for each line, a million times."""
    email = places["email"]
    at = places.get
    name, first, last = at("name"), at("first"), at("last")
    tongue, zone, document = at("language"), at("timezone"), at("attributes")
    topics, tags = at("topics"), at("tags")
    created, confirmed = at("created_at"), at("confirmed_at")
    state = _state(kind, places)
    typed = _typed(kind)
    ips = [places[role] for role in ("confirm_ip", "optin_ip") if role in places]

    def read(cells: list[str], line: int) -> Row:
        found: dict[str, Any] = {key: cells[place] for key, place in attributes if cells[place]}
        if document is not None:
            found = json_object(cells[document]) | found
        if typed:
            typed(found)
        if tags is not None and cells[tags]:
            labels = listed(cells[tags])
            found["tags"] = list(labels)
        else:
            labels = ()
        if name is not None:
            called = cells[name]
        else:
            parts = (cells[place].strip() for place in (first, last) if place is not None)
            called = " ".join(part for part in parts if part)
        confirmed_at = moment(cells[confirmed]) if confirmed is not None else None
        status_now, status_at = state(cells)
        return Row(
            line,
            cells[email],
            checked_name(called),
            found,
            language(cells[tongue]) if tongue is not None else None,
            timezone(cells[zone]) if zone is not None else None,
            listed(cells[topics]) if topics is not None and cells[topics] else (),
            labels,
            (moment(cells[created]) if created is not None else None) or confirmed_at,
            confirmed_at,
            status_now,
            status_at,
            ip=next((ip for place in ips if (ip := cells[place].strip()[:45])), None),
        )

    return read


def _state(kind: str, places: dict[str, int]) -> Callable[[list[str]], tuple[str, Any]]:
    """How the state of a person is told, and since when."""
    word, left, cleaned = places.get("status"), places.get("left_at"), places.get("cleaned_at")
    disabled, why = places.get("email_disabled"), places.get("left_why")

    def mailchimp(cells: list[str]) -> tuple[str, Any]:
        # Mailchimp writes one file for each state, told by its columns.
        if word is not None and cells[word].strip().lower() == "subscribed":
            return SUBSCRIBED, None
        if cleaned is not None:
            return SuppressionReason.BOUNCED.value, moment(cells[cleaned])
        if left is not None:
            reason = cells[why].lower() if why is not None else ""
            spam = any(sign in reason for sign in ("spam", "abuse", "complain"))
            return (
                SuppressionReason.COMPLAINED if spam else SuppressionReason.UNSUBSCRIBED
            ).value, moment(cells[left])
        return (status(cells[word]) if word is not None else SUBSCRIBED), None

    def listmonk(cells: list[str]) -> tuple[str, Any]:
        assert word is not None
        if cells[word].strip() == "blocklisted":
            return SuppressionReason.UNSUBSCRIBED.value, None
        return status(cells[word]), None

    def substack(cells: list[str]) -> tuple[str, Any]:
        if disabled is not None and _boolean(cells[disabled]):
            return SuppressionReason.UNSUBSCRIBED.value, None
        return SUBSCRIBED, None

    def plain(cells: list[str]) -> tuple[str, Any]:
        return (status(cells[word]) if word is not None else SUBSCRIBED), None

    return {"Mailchimp": mailchimp, "listmonk": listmonk, "Substack": substack}.get(kind, plain)


def _typed(kind: str) -> Callable[[dict[str, Any]], None] | None:
    """Attributes that another product's export is known to hold as more than text."""

    def mailchimp(found: dict[str, Any]) -> None:
        if (rating := found.get("member_rating", "")).isdecimal():
            found["member_rating"] = int(rating)

    def substack(found: dict[str, Any]) -> None:
        for key in ("active_subscription", "prefer_digests"):
            if key in found:
                found[key] = _boolean(found[key])

    return {"Mailchimp": mailchimp, "Substack": substack}.get(kind)


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if not word:
        return False
    if word not in _BOOLEANS:
        raise UnfitError("true or false is expected")
    return _BOOLEANS[word]


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]", "", folded)


#: Roles that hold one text, in JSON Lines too.
TEXTS = frozenset({"email", "name", "first", "last", "language", "timezone", "status"})
