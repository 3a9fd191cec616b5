"""Checks SPF, DKIM and DMARC of the sender's domain in DNS."""

from collections.abc import Callable, Iterator

from newsletter.checking.context import AskDns, CheckContext, Dns
from newsletter.checking.finding import CheckFinding
from newsletter.checking.parsed_body import line_of
from newsletter.doctor.account import Verdict, authenticated
from newsletter.doctor.dns import of_domain
from newsletter.errors import ProviderError, SettingsError
from newsletter.provider.account import Account, Ask
from newsletter.provider.dns_lookups import Lookup


def asking(lookup: Lookup, account: Callable[[], Ask]) -> AskDns:
    """A function that returns how to look up a sender's domain.

    It asks the provider's ``account`` which names of the domain are authenticated.
    """

    def asked(sender: str) -> Dns:
        name = sender.rpartition("@")[2].lower()
        try:
            return Dns(lookup, authenticated(Account(account()), name))
        except (ProviderError, SettingsError):
            return Dns(lookup)  # `newsletter doctor` reports the reason

    return asked


def sender_domain(case: CheckContext) -> Iterator[CheckFinding]:
    """The DNS checks of `newsletter doctor`, for the sender's domain of this issue."""
    if case.dns is None:
        return
    name = case.rendered.from_email.rpartition("@")[2].lower()
    line = line_of(case.draft, "from")
    for one in of_domain(case.dns.lookup, name, case.dns.authenticated):
        if one.verdict is not Verdict.OK:
            is_note = one.verdict is Verdict.UNKNOWN
            yield CheckFinding(
                f"{one.subject} of {name}: {one.message}", one.remedy, line, is_note=is_note
            )
    if case.dns.authenticated is None:
        # Receivers look up SPF at the return path, a name that SendGrid chooses.
        yield CheckFinding(
            f"SPF of {name}: unknown, because the SendGrid account has no such domain",
            "See Settings, Sender Authentication in SendGrid.",
            line,
            is_note=True,
        )
