"""From a request that goes out to the events that will be told of it."""

import time
from typing import Any

import orjson

from newsletter.sandbox import mailbox
from newsletter.sandbox.config import SandboxConfig
from newsletter.sandbox.events import body
from newsletter.sandbox.outcomes import Fate, fate
from newsletter.sandbox.store import EventRow, SandboxEmail, Store
from newsletter.sandbox.tracking_settings import Defaults, Measured, measured

#: Happenings that put the address on one of the account's own lists.
_LISTED = {
    "bounce": ("bounces", "550 5.1.1"),
    "blocked": ("blocks", "421 4.7.0"),
    "spamreport": ("spam_reports", ""),
    "unsubscribe": ("unsubscribes", ""),
    "group_unsubscribe": ("group", ""),
    # Only an invalid address is dropped without standing on a list already.
    "dropped": ("invalid_emails", "Mail domain mentioned in email address is unknown"),
}


class Planner:
    """Decides what becomes of each mail at the moment when it goes out."""

    def __init__(self, config: SandboxConfig, store: Store, defaults: Defaults) -> None:
        self._config, self._store, self._defaults = config, store, defaults

    def events(
        self,
        message_id: str,
        message: dict[str, Any],
        parts: list[tuple[str, dict[str, Any]]],
        first: int,
    ) -> list[EventRow]:
        """What will happen to a request's mails, the first of which has the id ``first``."""
        now = time.time()
        can = measured(message, self._defaults)
        listed = self._store.lists_of([email for email, _ in parts], can.lists)
        shared = {
            "custom_args": message.get("custom_args", {}),
            "categories": message.get("categories"),
            "asm": message.get("asm"),
        }
        rows = []
        for number, (email, part) in enumerate(parts):
            mail = SandboxEmail(first + number, message_id, number, now, email, "", shared, part)
            coming = fate(
                email, message_id,
                rates=self._config.event_rates, seed=self._config.seed,
                listed_on=listed.get(email.lower(), frozenset()),
            )  # fmt: skip
            rows += self._happenings(mail, coming, can, now)
        return rows

    def _happenings(
        self, mail: SandboxEmail, coming: Fate, can: Measured, now: float
    ) -> list[EventRow]:
        rows = []
        kinds = coming.happenings if coming.drop_reason else ("processed", *coming.happenings)
        for step, kind in enumerate(filter(can.happens, kinds)):
            if kind in _LISTED and not coming.listed:
                self._store.suppress(_LISTED[kind][0], mail.email, _LISTED[kind][1])
            at = now + step * self._config.event_delay
            link = ""
            if kind == "click":
                link = mailbox.fill(can.links[mail.number % len(can.links)], mail.part)
            text = orjson.dumps(
                body(mail, kind, at=at, reason=coming.drop_reason, url=link)
            ).decode()
            rows.append((mail.id, at, kind, text))
        return rows
