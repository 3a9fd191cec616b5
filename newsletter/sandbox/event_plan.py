"""Plans the events of an accepted request."""

import time
from typing import Any

import orjson

from newsletter.sandbox import mailbox
from newsletter.sandbox.config import SandboxConfig
from newsletter.sandbox.events import body
from newsletter.sandbox.outcomes import EmailOutcome, outcome_of
from newsletter.sandbox.store import PlannedEvent, SandboxEmail, Store
from newsletter.sandbox.tracking_settings import Defaults, Measured, measured

#: Event kinds that put the address on one of the account's suppression lists: (list, reason).
_LISTED = {
    "bounce": ("bounces", "550 5.1.1"),
    "blocked": ("blocks", "421 4.7.0"),
    "spamreport": ("spam_reports", ""),
    "unsubscribe": ("unsubscribes", ""),
    "group_unsubscribe": ("group", ""),
    # Only an invalid address is dropped without being on a list already.
    "dropped": ("invalid_emails", "Mail domain mentioned in email address is unknown"),
}


class EventPlanner:
    """Decides the events of each email when its request is accepted."""

    def __init__(self, config: SandboxConfig, store: Store, defaults: Defaults) -> None:
        self._config, self._store, self._defaults = config, store, defaults

    def events(
        self,
        message_id: str,
        message: dict[str, Any],
        parts: list[tuple[str, dict[str, Any]]],
        first: int,
    ) -> list[PlannedEvent]:
        """The events of a request's emails, the first of which has the ID ``first``."""
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
            outcome = outcome_of(
                email, message_id,
                rates=self._config.event_rates, seed=self._config.seed,
                listed_on=listed.get(email.lower(), frozenset()),
            )  # fmt: skip
            rows += self._events_of(mail, outcome, can, now)
        return rows

    def _events_of(
        self, mail: SandboxEmail, outcome: EmailOutcome, can: Measured, now: float
    ) -> list[PlannedEvent]:
        rows = []
        kinds = outcome.kinds if outcome.drop_reason else ("processed", *outcome.kinds)
        for step, kind in enumerate(filter(can.happens, kinds)):
            if kind in _LISTED and not outcome.listed:
                self._store.suppress(_LISTED[kind][0], mail.email, _LISTED[kind][1])
            at = now + step * self._config.event_delay
            link = ""
            if kind == "click":
                link = mailbox.fill(can.links[mail.number % len(can.links)], mail.part)
            text = orjson.dumps(
                body(mail, kind, at=at, reason=outcome.drop_reason, url=link)
            ).decode()
            rows.append((mail.id, at, kind, text))
        return rows
