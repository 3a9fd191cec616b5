"""Doctor check of the proxy: whether the service sees the visitors' own IP addresses."""

import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from ipaddress import ip_address
from typing import Final

from newsletter.doctor.account import DoctorFinding, Verdict

#: (URL, headers) → the page; OSError when there is no answer.
Fetch = Callable[[str, Mapping[str, str]], str]

#: An address reserved for documentation (RFC 5737), so no visitor has it.
FORGED: Final = "192.0.2.1"
_HEADERS: Final = {
    "X-Forwarded-For": FORGED,
    "Forwarded": f"for={FORGED}",
    "X-Real-IP": FORGED,
    "User-Agent": "newsletter-doctor",
}
_TIMEOUT = 10.0  # seconds
_SUBJECT = "visitors' addresses"
_PAGE = "docs/guides/reverse-proxy.md"


def of_visitors(base_url: str, fetch: Fetch) -> DoctorFinding:
    """Asks the service, through the proxy, which IP address this machine has.

    The request carries forged headers. If the service repeats the forged address, anybody can
    forge theirs.
    """
    try:
        seen = fetch(f"{base_url}/client-address", _HEADERS).strip()
        address = ip_address(seen)
    except (OSError, HTTPException, ValueError):
        remedy = f"Start the service, then run the doctor again. {_PAGE} shows the test by hand."
        message = f"{base_url} did not answer"
        return DoctorFinding(_SUBJECT, Verdict.UNKNOWN, message, remedy)
    if seen == FORGED:
        message = "anybody can forge theirs: the service believed a forged header"
        remedy = (
            "Let the proxy write the header of web.forwarded_header itself, and name only your "
            f"own proxies in web.trusted_proxies ({_PAGE})."
        )
        return DoctorFinding(_SUBJECT, Verdict.PROBLEM, message, remedy)
    if not address.is_global:
        message = f"the service sees this machine as {seen}, which is not a public address"
        remedy = (
            f"If that is your proxy's, all visitors share one rate limit: set web.trusted_proxies "
            f"({_PAGE})."
        )
        return DoctorFinding(_SUBJECT, Verdict.WARNING, message, remedy)
    return DoctorFinding(_SUBJECT, Verdict.OK, f"the service sees this machine as {seen}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, because the check is about the service itself."""

    def redirect_request(self, *_arguments: object) -> None:
        """Follow nothing."""


def fetch_page(url: str, headers: Mapping[str, str]) -> str:
    """The first 100 bytes of a page; OSError when there is no answer."""
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 (it is http or https)
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT) as answer:
        return bytes(answer.read(100)).decode(errors="replace")
