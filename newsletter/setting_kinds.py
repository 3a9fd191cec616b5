"""What a setting's value may be: kinds of text, each with an error that says how it is written."""

import json
import re
from datetime import date, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

#: Parameters of a URL whose values are nobody's business.
_SECRET = re.compile("pass|pwd|secret|token|key", re.IGNORECASE)
#: Names that mean something to segments and imports beyond an attribute's text.
_NOT_BY_FORMS = frozenset(
    ("tags", "status", "source", "email", "created_at", "confirmed_at", "topics", "attributes")
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def duration(text: object) -> timedelta:
    """``30s``, ``15m``, ``6h``, ``2d`` or ``1w``; ValueError says so otherwise."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", str(text).strip())
    if not match:
        raise ValueError("a length of time is written like 30s, 15m, 6h, 2d or 1w")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    # What urlsplit removes, and where it looks only when it is asked, the wire refuses later.
    if re.search(r"[\x00-\x20\x7f]", text) or parts.port == 0:
        raise ValueError("a web address has no spaces, no line breaks and no port 0")
    if "@" in parts.netloc:
        raise ValueError("a web address has no user and no password in it")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("a web address is written like https://news.example.com")
    return text.rstrip("/")


def masked_url(text: str) -> str:
    """The text with … for each password in a URL, also one whose signs were not escaped."""
    begin, separator, rest = text.partition("://")
    if not separator:
        return text
    place, question, query = rest.partition("?")
    user, at, host = place.rpartition("@")
    if at and not place.startswith("/"):
        name, colon, _ = user.partition(":")
        place = f"{name}{colon}{'********' if colon else ''}@{host}"
    # Without a host, the password stands where a port would.
    elif found := re.match(r"([^/:@\[\]]*):(?!\d*(?:/|$))[^/]*", place):
        place = f"{found[1]}:********{place[found.end() :]}"
    pairs = [pair.partition("=") for pair in query.split("&")]
    shown = "&".join(
        f"{name}={'********' if _SECRET.search(name) else value}" if equals else name
        for name, equals, value in pairs
    )
    return f"{begin}://{place}{question}{shown}"


def _one_line(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("line breaks and control characters are not allowed here")
    return text


def fits_header(secret: str) -> bool:
    """Whether an HTTP header can carry it: a line break or a typographic sign cannot be sent."""
    return re.fullmatch(r"[\x21-\x7e]*", secret) is not None


def _token(secret: SecretStr) -> SecretStr:
    if not fits_header(secret.get_secret_value()):
        raise ValueError(
            "a key is letters, digits and signs of ASCII, without spaces and line breaks: "
            "copy it once more"
        )
    return secret


def _mailbox(text: str) -> str:
    if text and not re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+", text):
        raise ValueError("an address is written like editors@example.com, without a name")
    return text


def _long_enough(secret: SecretStr) -> SecretStr:
    if 0 < len(secret.get_secret_value()) < 32:
        raise ValueError("a key has 32 characters or more")
    return secret


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise ValueError("a time zone is written like Europe/Berlin or UTC") from None
    return text


def _network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(str(value).strip()[:100])
    except ValueError:
        raise ValueError(
            "a network is written like 127.0.0.1, 10.0.0.0/8 or 2001:db8::/32, with zeros behind "
            "its length"
        ) from None


def _listed(value: object) -> object:
    """A list from the environment is written as JSON or separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('a list is written like ["one", "two"] or one, two') from None
    return [part.strip() for part in value.split(",") if part.strip()]


def _form_field(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise ValueError(
            "a field's name has letters a to z, digits and underscores, begins with a letter and "
            "has 40 characters at most"
        )
    if name in _NOT_BY_FORMS:
        raise ValueError(f"{name} cannot be set by a form: anybody can post one")
    return name


def _kept(value: object) -> timedelta | None:
    kept = duration(value or "0s")
    if timedelta() < kept < timedelta(days=35):
        raise ValueError("keep it for 35 days or more, or for ever with an empty text")
    return kept or None


def duration_text(value: timedelta) -> str:
    """The shortest text that ``duration`` reads as this."""
    seconds = int(value.total_seconds())
    unit = next(u for u in "wdhms" if seconds % _UNITS[u] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


#: For lists, in TOML or in the environment.
Listed = BeforeValidator(_listed)
Duration = Annotated[timedelta, BeforeValidator(duration)]
#: The same, where empty means never, as 0s does.
Period = Annotated[timedelta, BeforeValidator(lambda text: duration(text or "0s"))]
#: For how long something is kept; empty for ever. Machines' journals and late events reach
#: back by a month, so nothing that they speak of may be gone earlier.
Kept = Annotated[timedelta | None, BeforeValidator(_kept)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Line = Annotated[str, AfterValidator(_one_line)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
Key = Annotated[SecretStr, AfterValidator(_long_enough)]
#: A key that another service made, and that goes to it in a header.
Token = Annotated[SecretStr, AfterValidator(_token)]
Zone = Annotated[str, AfterValidator(_zone)]
Day = Annotated[date | None, BeforeValidator(lambda text: text or None)]
#: The name of an attribute that signup forms may set.
FormField = Annotated[str, AfterValidator(_form_field)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
