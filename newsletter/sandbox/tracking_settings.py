"""What SendGrid can learn of an email: only what its request, or else the account, asks for.

Source: the Mail Send reference (tracking_settings, mail_settings, asm) and SendGrid's page
"Click Tracking & HTML Best Practices", which says of which links the clicks are tracked.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: A link that SendGrid replaces: an ``a`` whose href is quoted, without spaces around ``=``, and
#: begins with http:// or https://. Group 1 is what stands before the href.
_ANCHOR: Final = re.compile(
    r"""<a(\s(?:[^<>"']|"[^"]*"|'[^']*')*?)?\shref=(?:"(https?://[^"]*)"|'(https?://[^']*)')""",
    re.IGNORECASE,
)
#: Switches it off for one link. It has to stand before the href.
_UNTRACKED: Final = re.compile(r"""\sclicktracking=(?:off|"off"|'off')(?=\s|$)""", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"https?://[^\s<>\"']+")
#: SendGrid tracks so many links of an email.
_MOST_LINKS: Final = 1000

#: The bypass settings, and the account's lists that each lifts.
_BYPASSES: Final[Mapping[str, frozenset[str]]] = {
    "bypass_list_management": frozenset(
        {"bounces", "spam_reports", "unsubscribes", "invalid_emails", "group"}
    ),
    "bypass_spam_management": frozenset({"spam_reports"}),
    "bypass_bounce_management": frozenset({"bounces"}),
    # Global unsubscribes only: whoever left a group stays out of it.
    "bypass_unsubscribe_management": frozenset({"unsubscribes"}),
}
BYPASSES: Final = tuple(_BYPASSES)

#: Whether the account tracks ``click``, ``open`` or ``subscription`` where a request says nothing.
Defaults = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Measured:
    """What may happen to the emails of one request, and which lists keep people from them."""

    #: Addresses, tags unreplaced, whose clicks are tracked.
    links: tuple[str, ...]
    opens: bool
    unsubscribes: bool
    #: The request names an unsubscribe group.
    group: bool
    #: The account's lists whose people are dropped.
    lists: frozenset[str]

    def happens(self, kind: str) -> bool:
        """Whether an event of this kind can come of it."""
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
    """What ``message``, an accepted request, lets SendGrid learn."""
    parts = {part["type"]: part["value"] for part in message["content"]}
    html = parts.get("text/html", "")
    clicks = _asked(message, "click_tracking", default=defaults("click"))
    links = _links(html) if clicks else []
    if clicks and (message.get("tracking_settings") or {}).get("click_tracking", {}).get(
        "enable_text"
    ):
        # Nothing can be excepted in a text: every address is replaced.
        links += _ADDRESS.findall(parts.get("text/plain", ""))
    group = isinstance(message.get("asm"), dict)
    lists = {"bounces", "spam_reports", "unsubscribes", "invalid_emails"}
    lists |= {"group"} if group else set()
    for name, lifted in _BYPASSES.items():
        if ((message.get("mail_settings") or {}).get(name) or {}).get("enable"):
            lists -= lifted
    return Measured(
        links=tuple(links[:_MOST_LINKS]),
        # The picture that shows an open stands in the HTML part.
        opens=bool(html) and _asked(message, "open_tracking", default=defaults("open")),
        unsubscribes=_asked(message, "subscription_tracking", default=defaults("subscription")),
        group=group,
        lists=frozenset(lists),
    )


def _asked(message: Mapping[str, Any], setting: str, *, default: bool) -> bool:
    """What the request says of a tracking setting counts more than the account."""
    said = ((message.get("tracking_settings") or {}).get(setting) or {}).get("enable")
    return default if said is None else bool(said)


def _links(html: str) -> list[str]:
    return [
        double or single
        for before, double, single in _ANCHOR.findall(html)
        if not _UNTRACKED.search(before)
    ]
