"""The types of settings. Each error message shows how a valid value is written."""

import json
import re
import unicodedata
from datetime import date, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

import idna
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from newsletter import durations

#: Parameters of a URL whose values are masked.
_SECRET = re.compile("pass|pwd|secret|token|key", re.IGNORECASE)
#: Names that segments and imports use for other fields, so forms may not set them.
_NOT_BY_FORMS = frozenset(
    ("tags", "status", "source", "email", "created_at", "confirmed_at", "topics", "attributes")
)
#: First parts of the paths of the service's own pages.
OWN_PATHS = frozenset(
    "archive client-address confirm console healthz metrics openapi.json preferences readyz "
    "request robots.txt shared sitemap.xml static subscribe unsubscribe view webhooks".split()
)
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
#: The most characters of a text, a URL and a secret.
_MOST_TEXT, _MOST_ADDRESS, _MOST_SECRET = 2000, 2000, 1000
#: The greatest whole number that databases and clocks handle.
_MOST = 1_000_000_000


def _lasting(text: object) -> timedelta:
    length = durations.parse(text)
    if not length:
        raise ValueError("a length of time here is 1s or more")
    return length


def _whole(value: object) -> object:
    """Refuse a boolean of TOML, which Python accepts as a number."""
    if isinstance(value, bool):
        raise ValueError("a whole number is written like 20")  # noqa: TRY004 (pydantic's way)
    return value


def _web_address(text: str) -> str:
    parts = urlsplit(text[: _MOST_ADDRESS + 1])
    # urlsplit removes or ignores these, but a request with them would fail later.
    if re.search(r"[\x00-\x20\x7f]", text) or parts.port == 0:
        raise ValueError("a web address has no spaces, no line breaks and no port 0")
    if parts.scheme not in {"http", "https"} or not parts.hostname or set(text) & {"?", "#"}:
        raise ValueError("a web address is written like https://news.example.com")
    if "@" in parts.netloc or len(text) > _MOST_ADDRESS or not _is_host(parts.hostname):
        raise ValueError(
            "a web address is written like https://news.example.com, without a user or password"
        )
    return _in_ascii(_one_line(text), parts).rstrip("/")


def _in_ascii(text: str, parts: SplitResult) -> str:
    """The URL with its host in ASCII (RFC 5891)."""
    host = parts.hostname or ""
    if host.isascii():
        return text
    try:
        name = idna.encode(host, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(f"{host} is not a host name: {error}") from None
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=name + port).geturl()


def _site_address(text: str) -> str:
    """Check the path of a URL. Pages, cookies and redirects use it, so it has to be plain."""
    path = urlsplit(text).path
    if not _PLAIN_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(
            "below a path, a web address is written like https://example.com/news, in letters, "
            "digits, and - . _ ~"
        )
    first = path.removeprefix("/").partition("/")[0]
    if first in OWN_PATHS:
        # Otherwise BasePath could not tell whether a proxy has removed the path.
        raise ValueError(f"/{first} is a path of the service's own: choose another, like /news")
    return text


def _origin(text: str) -> str:
    if urlsplit(text).path:
        raise ValueError("an origin is written like https://example.com, without a path")
    return text


def masked_url(text: str) -> str:
    """The URL with passwords masked, also those with characters that were not escaped."""
    begin, separator, rest = text.partition("://")
    if not separator:
        return text
    place, question, query = rest.partition("?")
    user, at, host = place.rpartition("@")
    if at and not place.startswith("/"):
        name, colon, _ = user.partition(":")
        place = f"{name}{colon}{'********' if colon else ''}@{host}"
    # Without a host, the password is in the place of the port.
    elif found := re.match(r"([^/:@\[\]]*):(?!\d*(?:/|$))[^/]*", place):
        place = f"{found[1]}:********{place[found.end() :]}"
    pairs = [pair.partition("=") for pair in query.split("&")]
    shown = "&".join(
        f"{name}={'********' if _SECRET.search(name) else value}" if equals else name
        for name, equals, value in pairs
    )
    return f"{begin}://{place}{question}{shown}"


def _is_host(name: str) -> bool:
    """Whether it is a host name (RFC 1035 §2.3.4), in any alphabet, or an IP address."""
    try:
        ip_address(name)
    except ValueError:
        labels = name.removesuffix(".").split(".")
        return len(name) <= 253 and all(re.fullmatch(r"[\w-]{1,63}", one) for one in labels)
    return True


def _host(name: str) -> str:
    if not name.isascii() or not _is_host(name):
        raise ValueError(
            "an address to listen on is written like 127.0.0.1, 0.0.0.0 (all networks), ::1 or "
            "localhost"
        )
    return name


def _allowed_host(name: str) -> str:
    if not name.isascii() or not _is_host(name):
        raise ValueError("a host is written like hooks.example.com or 192.0.2.1, without a port")
    return name.lower()


def _one_line(text: str, *, most: int = _MOST_TEXT) -> str:
    if any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in text[: most + 1]):
        raise ValueError("line breaks and control characters are not allowed here")
    if len(text) > most:
        raise ValueError(f"a text here has {most:,} characters at most")
    return text


def _line(text: str) -> str:
    return _one_line(text)


def _path(text: str) -> str:
    """Check the length of a path by Linux's PATH_MAX and NAME_MAX: 4,095 and 255 bytes."""
    _one_line(text, most=4095)
    parts = text.split("/")
    if len(text.encode()) > 4095 or any(len(part.encode()) > 255 for part in parts):
        raise ValueError("a path has 4,095 bytes at most, and each of its parts 255")
    if len(parts) > 100:
        raise ValueError("a path has 100 parts at most")
    return text


def _hours(text: str) -> str:
    clock = r"\s*([01]?[0-9]|2[0-3]):[0-5][0-9]\s*"
    if text and not re.fullmatch(f"{clock}[-–]{clock}", text[:100]):
        raise ValueError("hours are written like 22:00-07:00")
    return text


def _day(value: object) -> date | None:
    if value is None or value == "":
        return None
    try:
        day = value if isinstance(value, date) else date.fromisoformat(str(value)[:100].strip())
    except ValueError:
        day = None
    # datetime is a subclass of date.
    if type(day) is not date or not 2000 <= day.year <= 2200:
        raise ValueError("a day is written like 2026-12-01")
    return day


def _database(text: str) -> str:
    _one_line(text)
    try:
        url = make_url(text)
        known = url.get_backend_name() in {"sqlite", "postgresql", "postgres"}
    except (ArgumentError, ValueError):
        known = False
    if not known or (url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}):
        raise ValueError(
            "a database address is written like sqlite:///data/newsletter.db or "
            "postgresql://USER:PASSWORD@HOST/NAME"
        )
    return text


def fits_header(secret: str) -> bool:
    """Whether an HTTP header can contain it: only visible ASCII characters."""
    return re.fullmatch(r"[\x21-\x7e]*", secret) is not None


def _secret(secret: SecretStr) -> str:
    """The text of a secret; ValueError if it is invalid. The message never contains it."""
    text = secret.get_secret_value()
    if len(text) > _MOST_SECRET:
        raise ValueError(f"a key has {_MOST_SECRET:,} characters at most")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("a key is text: copy it once more")
    return text


def _token(secret: SecretStr) -> SecretStr:
    if not fits_header(_secret(secret)):
        raise ValueError(
            "a key is letters, digits and signs of ASCII, without spaces and line breaks: "
            "copy it once more"
        )
    return secret


def _mailbox(text: str) -> str:
    local, _, domain = text[:321].rpartition("@")
    # RFC 5322 §3.4.1 without quotes; domains may have any letters, which Punycode encodes.
    if text and not (re.fullmatch(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}", local) and _is_host(domain)):
        raise ValueError("an address is written like editors@example.com, without a name")
    return text


def _long_enough(secret: SecretStr) -> SecretStr:
    if 0 < len(_secret(secret)) < 32:
        raise ValueError("a key has 32 characters or more")
    return secret


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):  # the last is ZoneInfoNotFoundError's
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
    """Parse a list from the environment: JSON, or separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('a list is written like ["one", "two"], or one, two') from None
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


def _period(value: object) -> timedelta:
    return durations.parse("0s" if value is None or value == "" else value)


def _retention(value: object) -> timedelta | None:
    kept = _period(value)
    if timedelta() < kept < timedelta(days=35):
        raise ValueError("the shortest time is 35 days; an empty text keeps the data forever")
    return kept or None


#: For lists, in TOML or in the environment.
ListSetting = BeforeValidator(_listed)
Duration = Annotated[timedelta, BeforeValidator(durations.parse)]
#: A duration of at least one second.
Lasting = Annotated[timedelta, BeforeValidator(_lasting)]
#: A duration where empty or 0s means never.
Period = Annotated[timedelta, BeforeValidator(_period)]
#: A retention time; empty keeps forever. At least 35 days, because departure logs and late events
#: refer to data of the last month.
Retention = Annotated[timedelta | None, BeforeValidator(_retention)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Origin = Annotated[WebAddress, AfterValidator(_origin)]
#: A URL that may have a path.
SiteAddress = Annotated[WebAddress, AfterValidator(_site_address)]
Line = Annotated[str, AfterValidator(_line)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
Key = Annotated[SecretStr, AfterValidator(_long_enough)]
#: A key of another service, which is sent in a header.
Token = Annotated[SecretStr, AfterValidator(_token)]
Zone = Annotated[str, AfterValidator(_zone)]
Day = Annotated[date | None, BeforeValidator(_day)]
Hours = Annotated[str, AfterValidator(_hours)]
#: A file or folder of this machine; empty for none.
PathText = Annotated[str, AfterValidator(_path)]
DatabaseAddress = Annotated[str, AfterValidator(_database)]
#: The name of another host, or its address.
HostName = Annotated[str, AfterValidator(_allowed_host)]
#: A network address to listen on.
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=65535)]
#: A whole number from 0, and one from 1.
Amount = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=_MOST)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=_MOST)]
#: The name of an attribute that signup forms may set.
FormField = Annotated[str, AfterValidator(_form_field)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
