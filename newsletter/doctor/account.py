"""Doctor checks of the SendGrid account: API key, webhooks, sender's domain, tracking."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from newsletter.errors import ProviderError
from newsletter.issues.parsing.tracking_flags import TRACK_EVERYTHING, Tracked
from newsletter.provider.account import Account, Domain, ForbiddenError, TryAgainError, Webhook


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    #: Emails and events arrive, but the setup is not as it should be.
    WARNING = "warning"
    #: Emails do not arrive, or events are lost.
    PROBLEM = "problem"
    #: The check could not be made.
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """The result of one check, and what to do about it."""

    subject: str
    verdict: Verdict
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedSetup:
    """How the account should be set up."""

    events_url: str
    webhook_keys: Sequence[str]
    #: The domain of the sender's addresses.
    sender_domain: str
    #: The host that receives unsubscribe emails; empty for none.
    inbound_host: str = ""
    #: Contains a secret.
    inbound_url: str = field(default="", repr=False)
    #: What issues measure by default.
    tracked: Tracked = TRACK_EVERYTHING


#: Prefixes of scopes, and what does not work without them.
_SCOPES: Final = {
    "suppression.": "newsletter reconcile",
    "asm.": "newsletter reconcile, for groups and global unsubscribes",
}
#: Without these, a suppression or the outcome of an email gets lost.
_NEEDED: Final = frozenset(
    {"delivered", "bounce", "dropped", "spam_report", "unsubscribe", "group_unsubscribe"}
)
_USEFUL: Final = frozenset({"processed", "deferred", "open", "click"})
_EVENT_PAGE = "SendGrid, Settings, Mail Settings, Event Webhook"


def of_account(account: Account, expected: ExpectedSetup) -> Iterator[DoctorFinding]:
    """All findings about the account. If the key does not work, the other checks are skipped."""
    try:
        yield from _scopes(account.scopes())
    except ForbiddenError:
        # SendGrid accepts the key, but the key may not read its own scopes.
        yield DoctorFinding("API key", Verdict.OK, "works; its scopes cannot be read")
    except ProviderError as error:
        yield DoctorFinding("API key", Verdict.PROBLEM, error.message, error.hint or "")
        for subject in ("event webhook", "sender's domain", "tracking"):
            yield DoctorFinding(subject, Verdict.UNKNOWN, "not checked: see the API key")
        return
    yield from _checked("event webhook", lambda: _webhook(account, expected))
    if expected.inbound_host:
        yield from _checked("inbound email", lambda: _inbound(account, expected))
    yield from _checked("sender's domain", lambda: _domain(account, expected.sender_domain))
    yield from _checked("tracking", lambda: _tracking(account, expected.tracked))


def authenticated(account: Account, name: str) -> Domain | None:
    """The authenticated domain that signs for this one: itself, or one above it."""
    candidate: Domain | None = None
    labels = name.split(".")
    for start in range(len(labels) - 1):
        for domain in account.domains(".".join(labels[start:])):
            if domain.valid:
                return domain
            candidate = candidate or domain
    return candidate


def _checked(subject: str, check: Callable[[], list[DoctorFinding]]) -> list[DoctorFinding]:
    try:
        return check()
    except ForbiddenError as error:
        remedy = f"Give the API key the scope to read {error.place}, or check it in SendGrid."
        return [DoctorFinding(subject, Verdict.UNKNOWN, "the API key may not read this", remedy)]
    except TryAgainError as error:
        return [DoctorFinding(subject, Verdict.UNKNOWN, error.message, "Try again later.")]
    except ProviderError as error:
        return [DoctorFinding(subject, Verdict.PROBLEM, error.message, error.hint or "")]


def _scopes(scopes: Collection[str]) -> list[DoctorFinding]:
    if "mail.send" not in scopes:
        remedy = "In SendGrid, Settings, API Keys: give it Mail Send."
        return [DoctorFinding("API key", Verdict.PROBLEM, "lacks the scope mail.send", remedy)]
    findings = [DoctorFinding("API key", Verdict.OK, f"works, with {len(scopes)} scopes")]
    for start, use in _SCOPES.items():
        if not any(scope.startswith(start) for scope in scopes):
            remedy = f"Give the key scopes {start}* if you want: {use}."
            findings.append(
                DoctorFinding("API key", Verdict.WARNING, f"lacks every scope {start}*", remedy)
            )
    return findings


def _webhook(account: Account, expected: ExpectedSetup) -> list[DoctorFinding]:
    subject, hooks = "event webhook", account.webhooks()
    ours = [hook for hook in hooks if hook.url.rstrip("/") == expected.events_url]
    if not ours:
        # Hosts only: a URL may contain a password.
        hosts = ", ".join(sorted({urlsplit(hook.url).hostname or "?" for hook in hooks}))
        message = f"none posts to {expected.events_url}"
        message += f"; there are webhooks to {hosts}" if hosts else ""
        remedy = f"{_EVENT_PAGE}: add one with this URL, or correct site.base_url."
        return [DoctorFinding(subject, Verdict.PROBLEM, message, remedy)]
    enabled = [hook for hook in ours if hook.enabled]
    if not enabled:
        remedy = f"{_EVENT_PAGE}: enable it."
        return [DoctorFinding(subject, Verdict.PROBLEM, "it is switched off", remedy)]
    return [_kinds(enabled[0]), _signature(account, enabled[0], expected.webhook_keys)]


def _kinds(hook: Webhook) -> DoctorFinding:
    subject = "event webhook"
    for kinds, verdict in ((_NEEDED, Verdict.PROBLEM), (_USEFUL, Verdict.WARNING)):
        if missing := sorted(kinds - hook.kinds):
            message = f"does not post {', '.join(missing)}"
            return DoctorFinding(subject, verdict, message, f"{_EVENT_PAGE}: select them.")
    return DoctorFinding(
        subject, Verdict.OK, f"posts {len(hook.kinds)} kinds of events to {hook.url}"
    )


def _signature(account: Account, hook: Webhook, keys: Sequence[str]) -> DoctorFinding:
    subject, key = "webhook's signature", account.signing_key(hook)
    if not key:
        remedy = f"{_EVENT_PAGE}: enable Signed Event Webhook, "
        remedy += "and put its public key into sendgrid.webhook_public_keys."
        return DoctorFinding(
            subject, Verdict.PROBLEM, "posts are not signed, so we refuse them", remedy
        )
    if key.strip() not in {known.strip() for known in keys}:
        message = "SendGrid signs with a key that is not configured, so we refuse its posts"
        remedy = f"Put this first into sendgrid.webhook_public_keys: {key}"
        return DoctorFinding(subject, Verdict.PROBLEM, message, remedy)
    return DoctorFinding(subject, Verdict.OK, "signed with a configured key")


def _inbound(account: Account, expected: ExpectedSetup) -> list[DoctorFinding]:
    subject, host = "inbound email", expected.inbound_host
    url = account.inbound().get(host)
    page = "SendGrid, Settings, Inbound Parse"
    place = "site.base_url/webhooks/sendgrid/inbound/KEY, with inbound.key as KEY"
    if url is None:
        message = f"SendGrid receives no email for {host}"
        remedy = f"{page}: add this host, with the URL {place}."
        return [DoctorFinding(subject, Verdict.PROBLEM, message, remedy)]
    if url.rstrip("/") != expected.inbound_url:
        message = f"email to {host} is posted to another URL"
        remedy = f"{page}: the URL has to be {place}."
        return [DoctorFinding(subject, Verdict.PROBLEM, message, remedy)]
    return [DoctorFinding(subject, Verdict.OK, f"email to {host} is posted to us")]


def _domain(account: Account, name: str) -> list[DoctorFinding]:
    subject, domain = "sender's domain", authenticated(account, name)
    page = "SendGrid, Settings, Sender Authentication"
    if domain is None:
        message = f"{name} is not authenticated: emails are not signed for it and fail DMARC"
        remedy = f"{page}: authenticate the domain."
        return [DoctorFinding(subject, Verdict.PROBLEM, message, remedy)]
    if not domain.valid:
        message = f"SendGrid does not find the DNS records of {domain.name}"
        hosts = ", ".join(host for _, host in domain.records)
        remedy = f"{page}: verify. Records: {hosts}."
        return [DoctorFinding(subject, Verdict.PROBLEM, message, remedy)]
    return [DoctorFinding(subject, Verdict.OK, f"{domain.name} is authenticated")]


def _tracking(account: Account, ours: Tracked) -> list[DoctorFinding]:
    if account.tracks("google_analytics"):
        message = "Google Analytics adds parameters to the links in emails"
        remedy = "SendGrid, Settings, Tracking: switch it off, unless you want that."
        return [DoctorFinding("tracking", Verdict.WARNING, message, remedy)]
    # The settings of each request override the account's.
    settings = {"click": ours.clicks, "open": ours.opens, "subscription": False}
    differing = [name for name, on in settings.items() if account.tracks(name) is not on]
    differences = f"; they differ from the account's for {', '.join(differing)}"
    message = f"each email has its own settings{differences if differing else ''}"
    return [DoctorFinding("tracking", Verdict.OK, message)]
