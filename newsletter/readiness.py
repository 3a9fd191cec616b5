"""Checks whether the settings allow sending to real recipients, and reports all problems at once.

The defaults are enough for a sandbox on this machine. With a real provider, links must open a
public page, and the postal address and sender must not be those of the examples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from newsletter.errors import SettingsError
from newsletter.provider.dns_lookups import is_public_name, is_this_machine
from newsletter.settings.load import Settings

_INIT: Final = (
    "A new installation? `newsletter init` makes the keys and a file for the other settings; "
    "`newsletter init --sandbox` needs no account."
)
_MAKE: Final = '$(python3 -c "import secrets; print(secrets.token_urlsafe(32))")'
#: The postal addresses in default.toml and production.example.toml.
EXAMPLE_ADDRESSES: Final = (
    "Example Street 1, 12345 Example Town",
    "Example Media GmbH, Beispielstraße 1, 10115 Berlin, Germany",
)
#: Domains reserved for examples (RFC 2606 §3).
_EXAMPLE_DOMAINS: Final = ("example.com", "example.net", "example.org")


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """A problem with one setting, and its remedy."""

    key: str
    what: str
    remedy: str

    @property
    def line(self) -> str:
        """Key, problem and remedy in one line."""
        return f"{self.key} {self.what}. {self.remedy}"


def missing(settings: Settings) -> list[SettingProblem]:
    """The secrets that are not set."""
    found = []
    if not settings.sendgrid.api_key.get_secret_value():
        found.append(
            SettingProblem(
                "sendgrid.api_key",
                "is not set",
                "It sends the emails. Make one in SendGrid with the Mail Send permission:\n"
                "  export NEWSLETTER_SENDGRID__API_KEY=…",
            )
        )
    if not settings.links.keys:
        found.append(
            SettingProblem(
                "links.keys",
                "is not set",
                "It signs the links in emails. Make a key and keep it for as long as these should "
                "work:\n"
                f"  export NEWSLETTER_LINKS__KEYS={_MAKE}",
            )
        )
    if not settings.subscribers.address_key.get_secret_value():
        found.append(
            SettingProblem(
                "subscribers.address_key",
                "is not set",
                "It hashes addresses. A database in use has its own key, kept with its backups. "
                "For a new one, make a key and never change it, because it identifies suppressed "
                "addresses:\n"
                f"  export NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY={_MAKE}",
            )
        )
    return found


def lacking_key(settings: Settings, key: str) -> SettingsError:
    """The error for a missing key. It also names all other missing keys, to report them at once."""
    lacks = missing(settings)
    others = [lack for lack in lacks if lack.key != key]
    return _settings_error("are not set", [*(lack for lack in lacks if lack.key == key), *others])


def is_local(settings: Settings) -> bool:
    """Whether the provider is a sandbox on this machine."""
    return is_this_machine(settings.sendgrid.host)


def unfit(settings: Settings) -> list[SettingProblem]:
    """The settings that prevent sending; none with a sandbox on this machine."""
    return [] if is_local(settings) else list(_unfit(settings))


def require_fit(settings: Settings) -> None:
    """Raise SettingsError with all settings that prevent sending."""
    lacks, keys = unfit(settings), missing(settings)
    if lacks or any(lack.key == "sendgrid.api_key" for lack in keys):
        host = settings.sendgrid.host
        raise _settings_error(f"sending with {host} needs other values", [*keys, *lacks])


def is_example(address: str) -> bool:
    """Whether the address cannot exist: its domain is an example or not in public DNS."""
    domain = address.rpartition("@")[2].lower().removesuffix(".")
    return not is_public_name(domain) or f".{domain}".endswith(
        tuple(f".{name}" for name in _EXAMPLE_DOMAINS)
    )


def _unfit(settings: Settings) -> Iterator[SettingProblem]:
    site, url = settings.site, urlsplit(settings.site.base_url)
    remedy = (
        "Set it to the https address of this service behind your proxy. Otherwise readers cannot "
        "unsubscribe."
    )
    if url.scheme != "https":
        yield SettingProblem("site.base_url", f"is {site.base_url}, which is not https", remedy)
    elif is_example(url.hostname or ""):
        yield SettingProblem(
            "site.base_url", f"is {site.base_url}, which readers cannot reach", remedy
        )
    remedy = "Set it to your own: the law of most countries requires it in every email."
    given = _folded(site.postal_address)
    if not given:
        yield SettingProblem("site.postal_address", "is empty", remedy)
    elif any(_folded(example) in given for example in EXAMPLE_ADDRESSES):
        yield SettingProblem("site.postal_address", "is still the example", remedy)
    sender = settings.sender
    for key, address, remedy in (
        ("sender.email", sender.email, "Set it to an address that SendGrid has verified."),
        ("sender.reply_to", sender.reply_to, "Set it to a mailbox that you read."),
        (
            "inbound.address",
            settings.inbound.address,
            "Set it up (docs/guides/unsubscribe.md), or leave it empty.",
        ),
    ):
        if address and is_example(address):
            yield SettingProblem(key, f"is {address}, which is an example", remedy)


def _folded(text: str) -> str:
    return " ".join(text.casefold().replace(",", " ").split())


def _settings_error(message: str, lacks: Sequence[SettingProblem]) -> SettingsError:
    if len(lacks) == 1:
        return SettingsError(lacks[0].what, place=lacks[0].key, hint=lacks[0].remedy)
    return SettingsError(
        message,
        place=", ".join(lack.key for lack in lacks),
        hint="\n".join([*(lack.line for lack in lacks), *([_INIT] if _is_new(lacks) else [])]),
    )


def _is_new(lacks: Sequence[SettingProblem]) -> bool:
    """Whether nothing was set up yet: an installation in use has its own keys."""
    return {"links.keys", "subscribers.address_key"} <= {lack.key for lack in lacks}
