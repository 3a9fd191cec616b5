"""Whether receivers believe the sender: what DNS says of SPF, DKIM and DMARC."""

from collections.abc import Callable, Iterator

from newsletter.checking.context import AskDns, CheckContext, Dns
from newsletter.checking.finding import CheckFinding
from newsletter.checking.manuscript import line_of
from newsletter.doctor.account import Verdict, authenticated
from newsletter.doctor.dns import of_domain
from newsletter.errors import ProviderError, SettingsError
from newsletter.provider.account import Account, Ask
from newsletter.provider.dns_lookups import Lookup


def asking(lookup: Lookup, account: Callable[[], Ask]) -> AskDns:
    """Asks DNS, by the names that the provider's account gives; ``account`` lends the way to it."""

    def asked(sender: str) -> Dns:
        name = sender.rpartition("@")[2].lower()
        try:
            return Dns(lookup, authenticated(Account(account()), name))
        except (ProviderError, SettingsError):
            return Dns(lookup)  # the doctor says why

    return asked


def sender_domain(case: CheckContext) -> Iterator[CheckFinding]:
    """The same questions as the doctor's, about the domain of this very issue."""
    if case.dns is None:
        return
    name = case.rendered.from_email.rpartition("@")[2].lower()
    line = line_of(case.draft, "from")
    for one in of_domain(case.dns.lookup, name, case.dns.authenticated):
        if one.verdict is not Verdict.OK:
            is_note = one.verdict is Verdict.UNKNOWN
            yield CheckFinding(
                f"{one.subject} of {name}: {one.found}", one.mend, line, is_note=is_note
            )
    if case.dns.authenticated is None:
        # Bounces come back to a name of SendGrid's choice, and SPF is looked up there.
        yield CheckFinding(
            f"SPF of {name}: not known, as SendGrid names no domain of the account for it",
            "See Settings, Sender Authentication in SendGrid.",
            line,
            is_note=True,
        )
