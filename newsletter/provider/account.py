"""Reads and changes the SendGrid account: its suppression lists and its settings.

Source: Twilio's OpenAPI files (suppressions, webhooks, domain authentication, tracking
settings, scopes). Every request goes through ``ask``, from newsletter.provider.sendgrid.
"""

import contextlib
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from newsletter.errors import ProviderError

#: The most rows on a page of SendGrid. It does not document a limit for addresses in a POST.
PAGE = 500
_TRIES = 5
#: The longest wait that SendGrid may ask for; a longer one is an outage.
_LONGEST = timedelta(minutes=10)


class TryAgainError(ProviderError):
    """A rate limit, a fault of SendGrid or a lost answer: a retry may succeed."""

    retry_after: timedelta | None = None


class NoSuchError(ProviderError):
    """SendGrid has no such object, or the object's state does not allow the change."""


class ForbiddenError(ProviderError):
    """The API key lacks a scope."""


class StoppedError(ProviderError):
    """This process is to end."""


class Ask(Protocol):
    """One request to the v3 API."""

    def __call__(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: object = None
    ) -> Any:  # noqa: ANN401
        """The JSON of a 2xx answer; ProviderError for every other."""
        ...


#: Waits this many seconds; returns True when the process is to end.
Wait = Callable[[float], bool]


def patient(ask: Ask, wait: Wait) -> Ask:
    """``ask`` with retries after rate limits and temporary faults.

    Only for requests that may be repeated. Raises StoppedError when ``wait`` returns True.
    """

    def asked(
        method: str, path: str, *, query: Mapping[str, Any] | None = None, body: object = None
    ) -> Any:  # noqa: ANN401
        delay = timedelta()
        for left in reversed(range(_TRIES)):
            if wait(delay.total_seconds()):
                raise StoppedError("stopped half-way: the next run continues", place=path)
            try:
                return ask(method, path, query=query, body=body)
            except TryAgainError as error:
                delay = error.retry_after or timedelta(seconds=2 ** (_TRIES - left))
                if not left or delay > _LONGEST:
                    raise
        raise AssertionError("the last try returns or raises")

    return asked


class SuppressionListing(StrEnum):
    """The account's suppression lists."""

    BOUNCES = "bounces"
    INVALID = "invalid_emails"
    SPAM_REPORTS = "spam_reports"
    UNSUBSCRIBES = "unsubscribes"
    GROUPS = "group_unsubscribes"
    #: SendGrid still sends to these.
    BLOCKS = "blocks"


class ListEntry(NamedTuple):
    """An address on a list."""

    email: str
    at: datetime
    reason: str = ""
    #: The unsubscribe group, on the list GROUPS.
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """An event webhook."""

    id: str
    url: str
    enabled: bool
    #: SendGrid's names for the events that it posts.
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Domain:
    """An authenticated domain of the account, and (type, host) of its DNS records."""

    name: str
    valid: bool
    records: tuple[tuple[str, str], ...]


#: Kinds of events in the webhook's settings.
EVENT_KINDS: Final = frozenset(
    {
        "processed", "deferred", "delivered", "bounce", "dropped", "open", "click",
        "spam_report", "unsubscribe", "group_unsubscribe", "group_resubscribe",
    }
)  # fmt: skip


class Account:
    """Reads the account's lists and settings, and changes its suppression lists."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def pages(
        self, listing: SuppressionListing, *, since: datetime | None, until: datetime
    ) -> Iterator[list[ListEntry]]:
        """The entries of a list that were added between ``since`` and ``until``, in pages.

        Nothing may be removed from the list meanwhile, because later rows would move up.
        """
        if listing is SuppressionListing.GROUPS:
            yield from self._group_pages(since)
            return
        path, offset, before = f"suppression/{listing}", 0, None
        window = {"end_time": int(until.timestamp())}
        if since is not None:
            window["start_time"] = int(since.timestamp())
        while rows := _rows(
            self._ask("get", path, query={**window, "limit": PAGE, "offset": offset}), path
        ):
            if rows == before:
                raise _unexpected(path, "every page is equal")
            yield [entry for row in rows if (entry := _entry(row, "created"))]
            offset, before = offset + len(rows), rows

    def _group_pages(self, since: datetime | None) -> Iterator[list[ListEntry]]:
        # This list has no pages.
        path = "asm/suppressions"
        rows = _rows(self._ask("get", path), path)
        for begin in range(0, len(rows), PAGE):
            found = (_entry(row, "created_at") for row in rows[begin : begin + PAGE])
            yield [entry for entry in found if entry and (since is None or entry.at >= since)]

    def remove(self, listing: SuppressionListing, entry: ListEntry) -> None:
        """Remove an address from a list, if it is there."""
        email = urllib.parse.quote(entry.email, safe="")
        match listing:
            case SuppressionListing.UNSUBSCRIBES:
                path = f"asm/suppressions/global/{email}"
            case SuppressionListing.GROUPS:
                path = f"asm/groups/{entry.group}/suppressions/{email}"
            case _:
                path = f"suppression/{listing}/{email}"
        # It was removed before, or an earlier run did not get the answer.
        with contextlib.suppress(NoSuchError):
            self._ask("delete", path)

    def remove_all(self, listing: SuppressionListing, emails: Collection[str]) -> None:
        """Remove up to PAGE addresses from a list at once; missing ones are skipped.

        Only BOUNCES, INVALID and SPAM_REPORTS support this.
        """
        if not emails:
            return
        body = {"delete_all": False, "emails": list(emails)}
        try:
            self._ask("delete", f"suppression/{listing}", body=body)
        except NoSuchError:
            # SendGrid does not document what an unknown address does to the others, so remove each
            # one alone.
            for email in emails:
                self.remove(listing, ListEntry(email, datetime.now(UTC)))

    def find(self, listing: SuppressionListing, email: str) -> ListEntry | None:
        """The entry of one address on a list that has pages; None when it is not there."""
        path = f"suppression/{listing}"
        # The filter matches prefixes, so the answer may contain other addresses.
        rows = _rows(self._ask("get", path, query={"email": email, "limit": PAGE}), path)
        found = (entry for row in rows if (entry := _entry(row, "created")))
        return next((one for one in found if one.email.lower() == email.lower()), None)

    def suppress(self, emails: Collection[str]) -> None:
        """Add addresses to the list of global unsubscribes; existing ones stay."""
        self._ask("post", "asm/suppressions/global", body={"recipient_emails": list(emails)})

    def scopes(self) -> frozenset[str]:
        """The scopes of the API key."""
        return frozenset(_part(self._ask("get", "scopes"), "scopes", "scopes"))

    def webhooks(self) -> list[Webhook]:
        """The event webhooks of the account."""
        path = "user/webhooks/event/settings/all"
        return [
            Webhook(
                str(row.get("id") or ""),
                str(row.get("url") or ""),
                bool(row.get("enabled")),
                frozenset(kind for kind in EVENT_KINDS if row.get(kind)),
            )
            for row in _part(self._ask("get", path), "webhooks", path)
            if isinstance(row, dict)
        ]

    def signing_key(self, webhook: Webhook) -> str:
        """The public key of the webhook's signatures; empty if it does not sign."""
        path = f"user/webhooks/event/settings/signed/{urllib.parse.quote(webhook.id, safe='')}"
        try:
            answer = self._ask("get", path)
        except NoSuchError:
            return ""
        return str(answer.get("public_key") or "") if isinstance(answer, dict) else ""

    def inbound(self) -> dict[str, str]:
        """Host that receives email → URL that Inbound Parse posts it to."""
        path = "user/webhooks/parse/settings"
        rows = _part(self._ask("get", path), "result", path)
        found = (row for row in rows if isinstance(row, dict))
        return {str(row.get("hostname")).lower(): str(row.get("url")) for row in found}

    def domains(self, name: str) -> list[Domain]:
        """The authenticated domains with exactly this name."""
        path = "whitelabel/domains"
        return [
            Domain(name, bool(row.get("valid")), tuple(_records(row.get("dns"))))
            for row in _rows(self._ask("get", path, query={"domain": name, "limit": 50}), path)
            if isinstance(row, dict) and str(row.get("domain")).lower() == name
        ]

    def tracks(self, what: str) -> bool:
        """Whether the account's tracking setting ``what`` is on by default."""
        path = f"tracking_settings/{what}"
        answer = self._ask("get", path)
        if not isinstance(answer, dict) or "enabled" not in answer:
            raise _unexpected(path, "it does not say “enabled”")
        return bool(answer["enabled"])


def _rows(answer: object, place: str) -> list[Any]:
    if not isinstance(answer, list):
        raise _unexpected(place, "it is not a list")
    return answer


def _part(answer: object, name: str, place: str) -> list[Any]:
    return _rows(answer.get(name) if isinstance(answer, dict) else None, place)


def _entry(row: object, time_field: str) -> ListEntry | None:
    """The entry of a row; None for an invalid row, which must not stop the others."""
    try:
        assert isinstance(row, dict)
        at = datetime.fromtimestamp(int(row[time_field]), UTC)
        group = row.get("group_id")
        # PostgreSQL stores no NUL in text.
        reason = str(row.get("reason") or "").replace("\0", "")
        return ListEntry(str(row["email"]), at, reason, int(group) if group is not None else None)
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _records(dns: object) -> Iterator[tuple[str, str]]:
    for record in dns.values() if isinstance(dns, dict) else ():
        if isinstance(record, dict) and record.get("host"):
            yield str(record.get("type") or "").lower(), str(record["host"])


def _unexpected(place: str, what: str) -> ProviderError:
    return ProviderError(
        f"unexpected answer: {what}",
        place=place,
        hint="Make sure that sendgrid.host is SendGrid's.",
    )
