"""What SendGrid tracks of an email, by the settings of its request and of the account.

Source: the Mail Send reference (tracking_settings, mail_settings, asm) and SendGrid's page
"Click Tracking & HTML Best Practices", which says which links are tracked.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: A link that SendGrid replaces: an ``a`` whose href is quoted, without spaces around ``=``, and
#: begins with http:// or https://. Group 1 is the part before the href.
_ANCHOR: Final = re.compile(
    r"""<a(\s(?:[^<>"']|"[^"]*"|'[^']*')*?)?\shref=(?:"(https?://[^"]*)"|'(https?://[^']*)')""",
    re.IGNORECASE,
)
#: Switches tracking off for one link. It has to be before the href.
_UNTRACKED: Final = re.compile(r"""\sclicktracking=(?:off|"off"|'off')(?=\s|$)""", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"https?://[^\s<>\"']+")
#: SendGrid tracks this many links of an email.
_MAX_LINKS: Final = 1000

#: The bypass settings, and the account's lists that each ignores.
_BYPASSES: Final[Mapping[str, frozenset[str]]] = {
    "bypass_list_management": frozenset(
        {"bounces", "spam_reports", "unsubscribes", "invalid_emails", "group"}
    ),
    "bypass_spam_management": frozenset({"spam_reports"}),
    "bypass_bounce_management": frozenset({"bounces"}),
    # Global unsubscribes only, not those from a group.
    "bypass_unsubscribe_management": frozenset({"unsubscribes"}),
}
BYPASSES: Final = tuple(_BYPASSES)

#: Whether the account tracks ``click``, ``open`` or ``subscription`` by default.
Defaults = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Measured:
    """What is tracked of the emails of one request, and which suppression lists apply."""

    #: The tracked links, before substitution.
    links: tuple[str, ...]
    opens: bool
    unsubscribes: bool
    #: The request names an unsubscribe group.
    group: bool
    #: The account's lists whose addresses are dropped.
    lists: frozenset[str]

    def happens(self, kind: str) -> bool:
        """Whether these emails can have an event of this kind."""
        match kind:
            case "click":
                return bool(self.links)
            case "open" | "machine_open":
                return self.opens
            case "unsubscribe":
                return self.unsubscribes
            case "group_unsubscribe":
                return self.group
            case _:
                return True


def measured(message: Mapping[str, Any], defaults: Defaults) -> Measured:
    """The tracking of an accepted request."""
    parts = {part["type"]: part["value"] for part in message["content"]}
    html = parts.get("text/html", "")
    clicks = _setting(message, "click_tracking", default=defaults("click"))
    links = _links(html) if clicks else []
    if clicks and (message.get("tracking_settings") or {}).get("click_tracking", {}).get(
        "enable_text"
    ):
        # In a text part every link is tracked.
        links += _ADDRESS.findall(parts.get("text/plain", ""))
    group = isinstance(message.get("asm"), dict)
    lists = {"bounces", "spam_reports", "unsubscribes", "invalid_emails"}
    lists |= {"group"} if group else set()
    for name, ignored in _BYPASSES.items():
        if ((message.get("mail_settings") or {}).get(name) or {}).get("enable"):
            lists -= ignored
    return Measured(
        links=tuple(links[:_MAX_LINKS]),
        # The tracking image for opens is in the HTML part.
        opens=bool(html) and _setting(message, "open_tracking", default=defaults("open")),
        unsubscribes=_setting(message, "subscription_tracking", default=defaults("subscription")),
        group=group,
        lists=frozenset(lists),
    )


def _setting(message: Mapping[str, Any], setting: str, *, default: bool) -> bool:
    """The request's tracking setting; without one, the account's."""
    enabled = ((message.get("tracking_settings") or {}).get(setting) or {}).get("enable")
    return default if enabled is None else bool(enabled)


def _links(html: str) -> list[str]:
    return [
        double or single
        for before, double, single in _ANCHOR.findall(html)
        if not _UNTRACKED.search(before)
    ]
