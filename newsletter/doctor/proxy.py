"""What `newsletter doctor` finds between visitors and the service: whose address it sees."""

import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from ipaddress import ip_address
from typing import Final

from newsletter.doctor.account import DoctorFinding, Verdict

#: Gets a page with headers; OSError when nothing answers.
Fetch = Callable[[str, Mapping[str, str]], str]

#: An address of documentation (RFC 5737): no visitor comes from it.
FORGED: Final = "192.0.2.1"
_HEADERS: Final = {
    "X-Forwarded-For": FORGED,
    "Forwarded": f"for={FORGED}",
    "X-Real-IP": FORGED,
    "User-Agent": "newsletter-doctor",
}
_PATIENCE = 10.0  # seconds
_SUBJECT = "visitors' addresses"
_PAGE = "docs/guides/reverse-proxy.md"


def of_visitors(base_url: str, fetch: Fetch) -> DoctorFinding:
    """Asks the service, the way visitors do, from which address this machine comes.

    The request carries forged headers: a service that repeats them believes anybody.
    """
    try:
        seen = fetch(f"{base_url}/client-address", _HEADERS).strip()
        address = ip_address(seen)
    except (OSError, HTTPException, ValueError):
        mend = f"Start the service, then run the doctor again. {_PAGE} shows the test by hand."
        return DoctorFinding(_SUBJECT, Verdict.UNKNOWN, f"{base_url} does not tell", mend)
    if seen == FORGED:
        found = "anybody can forge theirs: a header that this machine made up was believed"
        mend = (
            "Let the proxy write the header of web.forwarded_header itself, and name only your "
            f"own proxies in web.trusted_proxies ({_PAGE})."
        )
        return DoctorFinding(_SUBJECT, Verdict.PROBLEM, found, mend)
    if not address.is_global:
        found = f"the service takes this machine for {seen}, which is no public address"
        mend = (
            f"If that is your proxy's, all visitors share one limit: set web.trusted_proxies "
            f"({_PAGE})."
        )
        return DoctorFinding(_SUBJECT, Verdict.WARNING, found, mend)
    return DoctorFinding(_SUBJECT, Verdict.OK, f"the service takes this machine for {seen}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The question is about the service itself: where it leads on to is not followed."""

    def redirect_request(self, *_given: object) -> None:
        """Follow nothing."""


def fetched(url: str, headers: Mapping[str, str]) -> str:
    """The beginning of a page; OSError when there is none."""
    asked = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 (site.base_url is http)
    with urllib.request.build_opener(_NoRedirect).open(asked, timeout=_PATIENCE) as answer:
        return bytes(answer.read(100)).decode(errors="replace")
