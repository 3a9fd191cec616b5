"""What `newsletter doctor` finds out about SendGrid's account: set up for us, or how to mend it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from newsletter.errors import ProviderError
from newsletter.issues.parsing.tracking_flags import EVERYTHING, Tracked
from newsletter.provider.account import Account, Domain, ForbiddenError, TryAgainError, Webhook


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    #: Mail goes out and comes back, but something is not as it should be.
    WARNING = "warning"
    #: Mail does not arrive, or what comes back is lost.
    PROBLEM = "problem"
    #: Nobody could be asked.
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One thing looked at: what was found, and what to do about it."""

    subject: str
    verdict: Verdict
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedSetup:
    """How the account should be set up."""

    events_url: str
    webhook_keys: Sequence[str]
    #: Sender addresses' domain.
    sender_domain: str
    #: Host that unsubscribing mails come in for; empty for none.
    inbound_host: str = ""
    #: Holds a secret.
    inbound_url: str = field(default="", repr=False)
    #: What our mails have measured unless they say otherwise.
    tracked: Tracked = EVERYTHING


#: Scopes by their beginning, and what does not work without them.
_SCOPES: Final = {
    "suppression.": "newsletter reconcile",
    "asm.": "newsletter reconcile, for groups and global unsubscribes",
}
#: Without these, somebody is mailed who must not be, or nobody knows what arrived.
_NEEDED: Final = frozenset(
    {"delivered", "bounce", "dropped", "spam_report", "unsubscribe", "group_unsubscribe"}
)
_USEFUL: Final = frozenset({"processed", "deferred", "open", "click"})
_EVENT_PAGE = "SendGrid, Settings, Mail Settings, Event Webhook"


def of_account(account: Account, wanted: ExpectedSetup) -> Iterator[DoctorFinding]:
    """Every finding about the account. When the key does not work, the rest is not asked."""
    try:
        yield from _scopes(account.scopes())
    except ForbiddenError:
        # It answers, so it is in force; what it may do cannot be listed.
        yield DoctorFinding("API key", Verdict.OK, "works; its scopes cannot be read")
    except ProviderError as error:
        yield DoctorFinding("API key", Verdict.PROBLEM, error.message, error.hint or "")
        for subject in ("event webhook", "sender's domain", "tracking"):
            yield DoctorFinding(subject, Verdict.UNKNOWN, "not asked: see the API key")
        return
    yield from _asked("event webhook", lambda: _webhook(account, wanted))
    if wanted.inbound_host:
        yield from _asked("inbound mail", lambda: _inbound(account, wanted))
    yield from _asked("sender's domain", lambda: _domain(account, wanted.sender_domain))
    yield from _asked("tracking", lambda: _tracking(account, wanted.tracked))


def authenticated(account: Account, name: str) -> Domain | None:
    """The authenticated domain that signs for this one: itself, or one above it."""
    found: Domain | None = None
    labels = name.split(".")
    for start in range(len(labels) - 1):
        for domain in account.domains(".".join(labels[start:])):
            if domain.valid:
                return domain
            found = found or domain
    return found


def _asked(subject: str, check: Callable[[], list[DoctorFinding]]) -> list[DoctorFinding]:
    try:
        return check()
    except ForbiddenError as error:
        mend = f"Give the API key the scope to read {error.place}, or look there yourself."
        return [DoctorFinding(subject, Verdict.UNKNOWN, "the API key may not read this", mend)]
    except TryAgainError as error:
        return [DoctorFinding(subject, Verdict.UNKNOWN, error.message, "Try again later.")]
    except ProviderError as error:
        return [DoctorFinding(subject, Verdict.PROBLEM, error.message, error.hint or "")]


def _scopes(scopes: Collection[str]) -> list[DoctorFinding]:
    if "mail.send" not in scopes:
        mend = "In SendGrid, Settings, API Keys: give it Mail Send."
        return [DoctorFinding("API key", Verdict.PROBLEM, "lacks the scope mail.send", mend)]
    found = [DoctorFinding("API key", Verdict.OK, f"works, with {len(scopes)} scopes")]
    for start, use in _SCOPES.items():
        if not any(scope.startswith(start) for scope in scopes):
            mend = f"Give the key scopes {start}* if you want: {use}."
            found.append(
                DoctorFinding("API key", Verdict.WARNING, f"lacks every scope {start}*", mend)
            )
    return found


def _webhook(account: Account, wanted: ExpectedSetup) -> list[DoctorFinding]:
    subject, hooks = "event webhook", account.webhooks()
    ours = [hook for hook in hooks if hook.url.rstrip("/") == wanted.events_url]
    if not ours:
        # Hosts only: a URL may hold a password.
        there = ", ".join(sorted({urlsplit(hook.url).hostname or "?" for hook in hooks}))
        found = f"none posts to {wanted.events_url}"
        found += f", but there are some to {there}" if there else ""
        mend = f"{_EVENT_PAGE}: add one with this URL, or correct site.base_url."
        return [DoctorFinding(subject, Verdict.PROBLEM, found, mend)]
    enabled = [hook for hook in ours if hook.enabled]
    if not enabled:
        mend = f"{_EVENT_PAGE}: enable it."
        return [DoctorFinding(subject, Verdict.PROBLEM, "it is switched off", mend)]
    return [_kinds(enabled[0]), _signature(account, enabled[0], wanted.webhook_keys)]


def _kinds(hook: Webhook) -> DoctorFinding:
    subject = "event webhook"
    for kinds, verdict in ((_NEEDED, Verdict.PROBLEM), (_USEFUL, Verdict.WARNING)):
        if missing := sorted(kinds - hook.kinds):
            found = f"does not post {', '.join(missing)}"
            return DoctorFinding(subject, verdict, found, f"{_EVENT_PAGE}: tick them.")
    return DoctorFinding(
        subject, Verdict.OK, f"posts {len(hook.kinds)} kinds of events to {hook.url}"
    )


def _signature(account: Account, hook: Webhook, keys: Sequence[str]) -> DoctorFinding:
    subject, key = "webhook's signature", account.signing_key(hook)
    if not key:
        mend = f"{_EVENT_PAGE}: enable Signed Event Webhook, "
        mend += "and put its public key into sendgrid.webhook_public_keys."
        return DoctorFinding(
            subject, Verdict.PROBLEM, "posts are not signed, so we take none", mend
        )
    if key.strip() not in {known.strip() for known in keys}:
        found = "SendGrid signs with a key that we do not know, so we take no post"
        mend = f"Put this into sendgrid.webhook_public_keys, first: {key}"
        return DoctorFinding(subject, Verdict.PROBLEM, found, mend)
    return DoctorFinding(subject, Verdict.OK, "signed with a key that we know")


def _inbound(account: Account, wanted: ExpectedSetup) -> list[DoctorFinding]:
    subject, url = "inbound mail", account.inbound().get(wanted.inbound_host)
    page = "SendGrid, Settings, Inbound Parse"
    place = "site.base_url/webhooks/sendgrid/inbound/KEY, with inbound.key as KEY"
    if url is None:
        found = f"nothing is received for {wanted.inbound_host}"
        mend = f"{page}: add this host, with the URL {place}."
        return [DoctorFinding(subject, Verdict.PROBLEM, found, mend)]
    if url.rstrip("/") != wanted.inbound_url:
        found = f"mail to {wanted.inbound_host} is posted elsewhere"
        return [
            DoctorFinding(subject, Verdict.PROBLEM, found, f"{page}: the URL has to be {place}.")
        ]
    return [DoctorFinding(subject, Verdict.OK, f"mail to {wanted.inbound_host} is posted to us")]


def _domain(account: Account, name: str) -> list[DoctorFinding]:
    subject, domain = "sender's domain", authenticated(account, name)
    page = "SendGrid, Settings, Sender Authentication"
    if domain is None:
        found = f"{name} is not authenticated: mails are not signed for it and fail DMARC"
        mend = f"{page}: authenticate the domain."
        return [DoctorFinding(subject, Verdict.PROBLEM, found, mend)]
    if not domain.valid:
        found = f"SendGrid does not see the DNS records of {domain.name}"
        hosts = ", ".join(host for _, host in domain.records)
        return [
            DoctorFinding(subject, Verdict.PROBLEM, found, f"{page}: verify. Records: {hosts}.")
        ]
    return [DoctorFinding(subject, Verdict.OK, f"{domain.name} is authenticated")]


def _tracking(account: Account, ours: Tracked) -> list[DoctorFinding]:
    if account.tracks("google_analytics"):
        found = "Google Analytics adds parameters to the links in mails"
        mend = "SendGrid, Settings, Tracking: switch it off, unless you want that."
        return [DoctorFinding("tracking", Verdict.WARNING, found, mend)]
    # What each of our requests says about these counts more than the account.
    asked = {"click": ours.clicks, "open": ours.opens, "subscription": False}
    differing = [what for what, wanted in asked.items() if account.tracks(what) is not wanted]
    said = f"; ours differ from the account's for {', '.join(differing)}" if differing else ""
    return [DoctorFinding("tracking", Verdict.OK, f"each mail brings its own settings{said}")]
