"""Maps the columns of a file to fields of a subscriber, to a status, or to attributes.

Names are compared without case, accents, spaces and punctuation. Exports of other products are
recognized by columns that only they have. The operator's mapping overrides everything.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from newsletter.errors import UserError
from subscribers.field_values import (
    InvalidValueError,
    checked_name,
    json_object,
    language,
    timezone,
)
from subscribers.list_files import export_format
from subscribers.list_files.cell_values import listed, moment
from subscribers.list_files.row import Row
from subscribers.list_files.row_status import (
    STATE_ROLES,
    TEXT,
    UNDECIDED,
    CellReader,
    StatusAt,
    strongest,
)
from subscribers.list_files.row_status import UnknownWordError as UnknownWordError
from subscribers.list_files.status_words import (
    SUBSCRIBED,
    UNCONFIRMED,
    Hint,
    fold,
    is_nothing,
    sense_of,
    state_of,
    yes_or_no,
)
from subscribers.models import SuppressionReason

ReadCells = Callable[[list[str], int], Row]

_ROLES = {
    word: role
    for role, words in {
        "email": "email emailaddress mail mailaddress emailadresse mailadresse adresseemail "
        "adressemail adressedemail adresseelectronique courriel adressecourriel correo "
        "correoelectronico direcciondecorreo direcciondecorreoelectronico direcciondeemail "
        "enderecodeemail indirizzoemail indirizzomail indirizzodiposta emailadres mailadres "
        "adresemail epost eposta emailosoite emailaddr useremail subscriber subscriberemail "
        "contactemail primaryemail emailprimary email1 email1value",
        "name": "name fullname",
        "first": "firstname fname givenname vorname prenom nombre nome voornaam imie",
        "last": "lastname lname surname familyname nachname apellido apellidos cognome "
        "sobrenome achternaam nazwisko",
        "language": "language lang",
        "timezone": "timezone tz",
        "topics": "topics topic",
        "tags": "tags",
        "created_at": "createdat created createdon createdate creationdate datecreated dateadded "
        "addedtime addedat signupdate signedupat signupat joinedat datejoined "
        "insertedat subscribedat subscribedon datesubscribed subscriptiondate subscribedate "
        "contactcreateddate",
        "confirmed_at": "confirmedat confirmedon confirmtime confirmationdate doubleoptinat",
        "status": "status",
        "attributes": "attributes attribs",
    }.items()
    for word in words.split()
}
EXPECTED = "email, e-mail or email address"
#: The meanings that an operator can give a column → the role.
MEANINGS = {
    "email": "email",
    "name": "name",
    "first name": "first",
    "last name": "last",
    "language": "language",
    "time zone": "timezone",
    "topics": "topics",
    "tags": "tags",
    "created": "created_at",
    "confirmed": "confirmed_at",
    "status": "status",
    "consent": "consent",
    "pending": "pending",
    "unsubscribed": "unsubscribed",
    "bounced": "bounced",
    "complained": "complained",
    "suppressed": "suppressed",
    "attributes": "attributes",
    "attribute": "attribute",
    "ignore": "",
}
_ALSO = {
    "subscribed": "consent",
    "optin": "consent",
    "mail": "email",
    "createdat": "created_at",
    "confirmedat": "confirmed_at",
    "ignored": "",
    "none": "",
    "spam": "complained",
    "blocked": "suppressed",
    "bounce": "bounced",
    "unsubscribedat": "unsubscribed",
    "state": "status",
}
_MEANT = {fold(word): role for word, role in MEANINGS.items()} | _ALSO
#: The meanings that an operator can give a word, or a whole file → the status.
WORD_MEANINGS = {
    "subscribed": SUBSCRIBED,
    "unconfirmed": UNCONFIRMED,
    "unsubscribed": SuppressionReason.UNSUBSCRIBED.value,
    "bounced": SuppressionReason.BOUNCED.value,
    "complained": SuppressionReason.COMPLAINED.value,
    "suppressed": SuppressionReason.MANUAL.value,
}

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
    # Internal data of Mailchimp, and guesses from the IP address.
    **dict.fromkeys(("leid", "euid", "lastchanged", "latitude", "longitude"), ""),
    **dict.fromkeys(("gmtoff", "dstoff", "unsubcampaigntitle", "unsubcampaignid"), ""),
    **dict.fromkeys(("unsubreasonother", "cleancampaigntitle", "cleancampaignid"), ""),
}
_LISTMONK = frozenset({"uuid", "email", "name", "attributes", "status"})
_LISTMONK_ROLES = {"uuid": "", "updatedat": ""}
_SUBSTACK = frozenset({"email", "emaildisabled"})
# Paid subscriptions: they say nothing about email.
_SUBSTACK_ROLES = {"activesubscription": "=active_subscription", "canceldate": "=cancel_date"}
#: HubSpot's file of all who opted out of anything, with a column for each type of email.
_HUBSPOT_LEAVERS = frozenset({"portalunsubscribe"})
_GHOST = frozenset({"email", "subscribedtoemails"})
_GHOST_ROLES = {"labels": "tags", "id": "", "deletedat": "unsubscribed"}
_HUBSPOT = "HubSpot unsubscribes"
_SHOWN = {"first": "first name", "last": "last name"}
#: Roles whose value is one text, in JSON Lines too.
TEXTS = frozenset({"email", "name", "first", "last", "language", "timezone"})
#: Roles whose cells are times, possibly with an ambiguous order of day and month.
DATES = frozenset({"created_at", "left_at", "cleaned_at"})
#: Roles whose cells are not searched for words about leaving: they are personal texts.
_PERSONAL = TEXTS | {"attributes"}


def attribute_key(name: str, number: int = 0) -> str:
    """The attribute key for a column of this name: ``[a-z][a-z0-9_]*``."""
    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    key = re.sub(r"[^a-z0-9]+", "_", folded).strip("_")
    if not key:
        return f"column_{number}"
    return key if key[0].isalpha() else f"column_{key}"


@dataclass(slots=True)
class Column:
    """A column of a file, or a key of its objects, and what the import does with it."""

    name: str
    #: The number of the cell; the path of the key in an object.
    place: int
    path: tuple[str, ...] = ()
    #: A field, ``=KEY`` for an attribute, empty to ignore it; None for an attribute by its name.
    role: str | None = None
    #: The operator chose the role, so there are no questions about it.
    is_chosen: bool = False
    hint: Hint | None = None
    #: The order of day and month in its dates.
    order: str | None = None
    #: The key of its attribute.
    key: str = ""
    #: It is a column of our own export.
    is_own: bool = False

    @property
    def is_state(self) -> bool:
        """Whether it says who may be emailed."""
        return self.role in STATE_ROLES and (not self.is_own or self.role == "status")

    @property
    def is_searched(self) -> bool:
        """Whether its cells are searched for words that say that somebody left."""
        if self.is_chosen or self.is_own or self.is_state or self.hint is Hint.ELSEWHERE:
            return False
        return self.role not in _PERSONAL and self.role not in DATES and self.role != ""

    @property
    def has_dates(self) -> bool:
        """Whether its cells may be dates whose order matters."""
        if self.is_own:
            return False
        return self.role in DATES or (self.is_state and self.role not in {"status", UNDECIDED})

    @property
    def meaning(self) -> str:
        """What the import does with it, as text; empty if it is ignored."""
        if self.is_own:
            return self.name
        if self.role == "":
            return ""
        if self.role == UNDECIDED:
            return "not decided yet"
        if self.role is None or self.role.startswith("="):
            return f"attribute {self.key}"
        role = self.role.removesuffix(TEXT)
        return _SHOWN.get(role, role.replace("_", " "))


@dataclass(slots=True)
class Layout:
    """The columns of a file with their meanings."""

    #: The detected format, by the product that wrote it.
    kind: str
    columns: list[Column] = field(default_factory=list)
    #: Its rows are objects, perhaps with nested keys.
    is_json: bool = False

    def find(self, role: str) -> Column | None:
        """The column with this role."""
        return next((one for one in self.columns if one.role == role), None)

    @property
    def states(self) -> list[Column]:
        """The columns that say who may be emailed."""
        return [one for one in self.columns if one.is_state]

    @property
    def meanings(self) -> list[tuple[str, str]]:
        """Each column with its meaning."""
        return [(one.name, one.meaning) for one in self.columns]

    @property
    def references(self) -> list[str]:
        """The name of each column in a mapping: its number in CSV, where names may repeat."""
        return [
            one.name if self.is_json or len(one.path) > 1 else f"#{one.place + 1}"
            for one in self.columns
        ]

    def name_attributes(self) -> None:
        """Give each column that becomes an attribute a unique key."""
        taken: set[str] = set()
        # Key → the number for the next column with the same key.
        repeated: dict[str, int] = {}
        for one in self.columns:
            one.key = ""
            if one.role is not None and not one.role.startswith("="):
                continue
            key = one.role[1:] if one.role else attribute_key(one.name, one.place + 1)
            unique, again = key, repeated.get(key, 2)
            while unique in taken:
                unique, again = f"{key}_{again}", again + 1
            repeated[key] = again
            taken.add(unique)
            one.key = unique


def layout_of(
    names: Iterable[str],
    mapping: Sequence[tuple[str, str]] = (),
    *,
    is_own: bool = False,
    is_json: bool = False,
) -> Layout:
    """The layout for columns of these names. Raises UserError for a mapping that does not fit."""
    header = list(names)
    plain = [fold(name) for name in header]
    chosen, deeper = _chosen(header, mapping, is_json=is_json)
    kind, special = _product_of(plain)
    layout = Layout("newsletter" if is_own else "JSON Lines" if is_json else kind)
    layout.is_json = is_json
    taken = {role for role in chosen.values() if role}
    for number, (name, word) in enumerate(zip(header, plain, strict=True)):
        column = Column(name, number, (name,))
        layout.columns.append(column)
        if number in chosen:
            column.is_chosen = True
            column.role = chosen[number]
            if column.role == "attribute":
                column.role = None
            continue
        if is_own and name in export_format.COLUMNS:
            column.role, column.is_own = name, True
            continue
        _read_name(column, word, special if not is_json else {}, taken)
        if column.role is None and kind == _HUBSPOT and not is_json:
            column.hint, column.role = Hint.MEANS, "unsubscribed"
    layout.columns += deeper
    layout.name_attributes()
    return layout


def _read_name(column: Column, word: str, special: Mapping[str, str], taken: set[str]) -> None:
    """Set the role of a column from its name, if that has one."""
    role = special.get(word, _ROLES.get(word))
    if role is None:
        if sense := sense_of(column.name):
            column.hint, column.role = sense.hint, sense.role
    elif role in STATE_ROLES or role.startswith("=") or not role:
        column.role = role
    elif role not in taken:  # of two columns with the same role, the first counts
        column.role = role
        taken.add(role)


def meaning_to_role(meaning: str, place: str) -> str:
    """The role for a meaning that the operator gave; UserError for an unknown one."""
    head, _, key = meaning.strip().partition(":")
    if key and fold(head) == "attribute":
        return f"={attribute_key(key.strip())}"
    role = _MEANT.get(fold(meaning))
    if role is None:
        raise UserError(
            f"a column cannot mean “{meaning.strip()[:40]}”",
            place=place,
            hint=f"Use one of: {', '.join(MEANINGS)}; or attribute:KEY.",
        )
    return role


def word_to_state(meaning: str, place: str) -> str:
    """The status for a meaning that the operator gave; UserError for an unknown one."""
    state = WORD_MEANINGS.get(meaning.strip().lower()) or state_of(meaning)
    if state not in set(WORD_MEANINGS.values()):
        raise UserError(
            f"“{meaning.strip()[:40]}” is not a status",
            place=place,
            hint=f"Use one of: {', '.join(WORD_MEANINGS)}.",
        )
    return state


def check_mapping(mapping: Iterable[tuple[str, str]]) -> None:
    """Raise UserError for an unknown meaning, and if two columns have the same field."""
    taken: set[str] = set()
    for name, meaning in mapping:
        role = meaning_to_role(meaning, name)
        if role in taken:
            raise UserError(
                f"two columns cannot both be the {_SHOWN.get(role, role.lstrip('='))}", place=name
            )
        if role and role not in STATE_ROLES and role != "attribute":
            taken.add(role)


def has_addresses(header: Sequence[str]) -> bool:
    """Whether one of these is the address column, by its name."""
    return any(_ROLES.get(fold(name)) == "email" for name in header)


def _chosen(
    header: list[str], mapping: Sequence[tuple[str, str]], *, is_json: bool
) -> tuple[dict[int, str], list[Column]]:
    """The operator's mapping: column number → role, and nested keys like ``attributes.left``.

    ``#3`` is the third column, whatever its name. Keys of JSON Lines may first appear late in the
    file.
    """
    check_mapping(mapping)
    chosen: dict[int, str] = {}
    deeper: list[Column] = []
    for name, meaning in mapping:
        role = meaning_to_role(meaning, name)
        found = _named(header, name)
        if found is None:
            path = (name,) if "." not in name else tuple(name.split("."))
            if is_json or (path[0] in header and len(path) > 1):
                place = header.index(path[0]) if path[0] in header else -1
                kept = role if role in STATE_ROLES else ""
                deeper.append(Column(name, place, path, kept, is_chosen=True))
                continue
            seen = ", ".join(f"“{one[:40]}”" for one in header[:20])
            raise UserError(
                "the file has no column of this name", place=name, hint=f"It has: {seen or 'none'}."
            )
        chosen[found] = role
    return chosen, deeper


def _named(header: list[str], name: str) -> int | None:
    if name in header:
        return header.index(name)
    if re.fullmatch(r"#\d{1,4}", name) and 1 <= int(name[1:]) <= len(header):
        return int(name[1:]) - 1
    alike = [n for n, one in enumerate(header) if fold(one) == fold(name) and fold(name)]
    return alike[0] if len(alike) == 1 else None


def _product_of(plain: Collection[str]) -> tuple[str, Mapping[str, str]]:
    """The product whose export has these columns, and its special roles."""
    known = frozenset(plain)
    if _MAILCHIMP_SIGNS & known:
        return "Mailchimp", _MAILCHIMP_ROLES
    if known >= _LISTMONK:
        return "listmonk", _LISTMONK_ROLES
    if known >= _SUBSTACK:
        return "Substack", _SUBSTACK_ROLES
    if known >= _GHOST:
        return "Ghost", _GHOST_ROLES
    if known >= _HUBSPOT_LEAVERS:
        return _HUBSPOT, {}
    return "CSV", {}


# CSV rows.


def cell_reader(layout: Layout, chosen: Mapping[str, str]) -> ReadCells:
    """A function that reads a row; one closure for speed, as it runs for each of a million rows."""
    states = _states(layout, chosen)
    if layout.kind == "newsletter":
        return _own_reader(layout, states)
    at = {
        one.role: one.place
        for one in reversed(layout.columns)
        if one.role and (not one.is_state or one.role == "confirmed_at")
    }
    attributes = [(one.key, one.place) for one in layout.columns if one.key]
    email = at["email"]
    name, first, last = at.get("name"), at.get("first"), at.get("last")
    greetings = [(f"{role}_name", at[role]) for role in ("first", "last") if role in at]
    language_at, zone, document = at.get("language"), at.get("timezone"), at.get("attributes")
    topics, tags = at.get("topics"), at.get("tags")
    created, confirmed = at.get("created_at"), at.get("confirmed_at")
    made_order, sure_order = _order(layout, "created_at"), _order(layout, "confirmed_at")
    state = _state(layout, at, states)
    typed = _typed(layout.kind)
    ips = [at[role] for role in ("confirm_ip", "optin_ip") if role in at]

    def read(cells: list[str], line: int) -> Row:
        found: dict[str, Any] = {key: cells[place] for key, place in attributes if cells[place]}
        for key, place in greetings:
            if cells[place]:
                found.setdefault(key, cells[place])
        if document is not None:
            found = json_object(cells[document]) | found
        if typed:
            typed(found)
        if tags is not None and cells[tags]:
            labels = listed(cells[tags])
            found["tags"] = list(labels)
        else:
            labels = ()
        called = cells[name] if name is not None else ""
        if not called:
            parts = (cells[place].strip() for place in (first, last) if place is not None)
            called = " ".join(part for part in parts if part)
        confirmed_at = certain(cells[confirmed], sure_order) if confirmed is not None else None
        status_now, status_at = state(cells)
        return Row(
            line,
            cells[email],
            checked_name(called),
            found,
            language(cells[language_at]) if language_at is not None else None,
            timezone(cells[zone]) if zone is not None else None,
            listed(cells[topics]) if topics is not None and cells[topics] else (),
            labels,
            (moment(cells[created], made_order) if created is not None else None) or confirmed_at,
            confirmed_at,
            status_now,
            status_at,
            ip=next((ip for place in ips if (ip := cells[place].strip()[:45])), None),
        )

    return read


def certain(text: str, order: str | None) -> Any:  # noqa: ANN401 (a moment or None)
    """The time of a confirmation, from a column with times or with yes and no."""
    if is_nothing(text) or yes_or_no(text) is not None or text.strip() == "2" or state_of(text):
        return None
    return moment(text, order)


def _order(layout: Layout, role: str) -> str | None:
    found = layout.find(role)
    return found.order if found else None


def _states(
    layout: Layout, chosen: Mapping[str, str]
) -> Callable[[list[str]], list[StatusAt]] | None:
    """A function that returns what each status column says about a row; None without any."""
    columns = [one for one in layout.states if not one.is_own]
    if not columns:
        return None
    readers = [
        (one.place, one.path[1:], CellReader(one.role or "", one.order, chosen)) for one in columns
    ]

    def read(cells: list[str]) -> list[StatusAt]:
        return [
            reader(cells[place] if not path else _inside(cells[place], path))
            for place, path, reader in readers
        ]

    def read_located(cells: list[str]) -> list[StatusAt]:
        try:
            return read(cells)
        except UnknownWordError:
            for one, (place, path, reader) in zip(columns, readers, strict=True):
                text = cells[place] if not path else _inside(cells[place], path)
                try:
                    reader(text)
                except UnknownWordError:
                    raise unknown_word(one, text) from None
            raise

    return read_located


def unknown_word(column: Column, text: str) -> InvalidValueError:
    """The reason to reject a row with this cell."""
    shown = "".join(c if c.isprintable() else "�" for c in text.strip()[:40])
    what = "status" if column.role == "status" else f"word in the column {column.name[:40]},"
    return InvalidValueError(f"the {what} “{shown}” is unknown")


def _inside(text: str, path: Sequence[str]) -> str:
    """The value at a path of a JSON cell, as text."""
    return text_of(dig(json_object(text), path))


def dig(value: object, path: Sequence[str]) -> object:
    """The value at a path of an object; None if there is none."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text_of(value: object) -> str:
    """A JSON value as the text of a CSV cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return str(value) if value else ""
    return str(value)


def _own_reader(layout: Layout, states: Callable[[list[str]], list[StatusAt]] | None) -> ReadCells:
    """Reads rows of our own export, perhaps with added columns."""
    keys = {one.name: one.key for one in layout.columns if one.key}
    read = export_format.from_cells([one.name for one in layout.columns], keys.get)
    if states is None:
        return read
    tell = states

    def more(cells: list[str], line: int) -> Row:
        row = read(cells, line)
        status, at = strongest([(row.status, row.status_at), *tell(cells)])
        return row._replace(status=status, status_at=at)

    return more


def _state(
    layout: Layout,
    at: Mapping[str, int],
    states: Callable[[list[str]], list[StatusAt]] | None,
) -> Callable[[list[str]], StatusAt]:
    """A function that returns the status of a row, and its time."""
    if layout.kind == "Mailchimp" and ("left_at" in at or "cleaned_at" in at):
        return _mailchimp(layout, at, states)
    if states is None:
        return lambda _: (SUBSCRIBED, None)
    tell = states
    return lambda cells: strongest(tell(cells))


def _mailchimp(
    layout: Layout,
    at: Mapping[str, int],
    states: Callable[[list[str]], list[StatusAt]] | None,
) -> Callable[[list[str]], StatusAt]:
    """Mailchimp writes a file for each status, recognized by its columns; all people in it left."""
    left, cleaned, why = at.get("left_at"), at.get("cleaned_at"), at.get("left_why")
    words = [one.place for one in layout.columns if one.role == "status"]
    left_order, clean_order = _order(layout, "left_at"), _order(layout, "cleaned_at")

    def read(cells: list[str]) -> StatusAt:
        said = states(cells) if states else []
        now_subscribed = any(state_of(cells[place]) == SUBSCRIBED for place in words)
        if cleaned is not None and (cells[cleaned].strip() or not now_subscribed):
            said.append((SuppressionReason.BOUNCED.value, moment(cells[cleaned], clean_order)))
        if left is not None and (cells[left].strip() or not now_subscribed):
            reason = cells[why].lower() if why is not None else ""
            spam = any(sign in reason for sign in ("spam", "abuse", "complain"))
            how = SuppressionReason.COMPLAINED if spam else SuppressionReason.UNSUBSCRIBED
            said.append((how.value, moment(cells[left], left_order)))
        return strongest(said)

    return read


def _typed(kind: str) -> Callable[[dict[str, Any]], None] | None:
    """Converts attributes that another product's export has with a type other than text."""

    def mailchimp(found: dict[str, Any]) -> None:
        if (rating := found.get("member_rating", "")).isdecimal():
            found["member_rating"] = int(rating)

    def substack(found: dict[str, Any]) -> None:
        for key in ("active_subscription", "prefer_digests"):
            if key in found and (known := yes_or_no(found[key])) is not None:
                found[key] = known

    return {"Mailchimp": mailchimp, "Substack": substack}.get(kind)
