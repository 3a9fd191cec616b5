"""Doctor checks of DNS: DMARC, DKIM, SPF, the inbound MX record and the host of site.base_url.

DMARC is looked up at the sender's domain and then at its parents. SPF and DKIM are looked up
under the names that SendGrid gave to the domain, because bounces go to SendGrid and not to us.
"""

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from newsletter.doctor.account import DoctorFinding, Verdict
from newsletter.provider.account import Domain
from newsletter.provider.dns_lookups import Lookup, UnaskedError, is_public_name

#: SendGrid's default selectors.
_SELECTORS = ("s1", "s2")


def of_domain(
    lookup: Lookup, name: str, authenticated: Domain | None, *, inbound_host: str = ""
) -> Iterator[DoctorFinding]:
    """Checks the DNS records of the sender's domain, and of the host that receives email."""
    yield _checked("DMARC", lambda: _dmarc(lookup, name))
    yield _checked("DKIM", lambda: _dkim(lookup, name, authenticated))
    if authenticated is not None:
        yield _checked("SPF", lambda: _spf(lookup, authenticated))
    if inbound_host:
        yield _checked("inbound MX", lambda: _mx(lookup, inbound_host))


def of_base_url(lookup: Lookup, base_url: str) -> DoctorFinding:
    """Checks whether subscribers and SendGrid can reach the service at ``base_url``."""
    subject, parts = "site.base_url", urlsplit(base_url)
    host = parts.hostname or ""
    remedy = "Set site.base_url to the public https address that your proxy serves."
    if parts.scheme != "https":
        return DoctorFinding(subject, Verdict.PROBLEM, f"{base_url} is not https", remedy)
    if not is_public_name(host):
        return DoctorFinding(subject, Verdict.PROBLEM, f"{host} is not a public host", remedy)
    return _checked(subject, lambda: _base_host(lookup, host, remedy))


def _checked(subject: str, check: Callable[[], DoctorFinding]) -> DoctorFinding:
    try:
        return check()
    except UnaskedError as error:
        return DoctorFinding(subject, Verdict.UNKNOWN, f"the DNS lookup failed: {error}")


def _dmarc(lookup: Lookup, name: str) -> DoctorFinding:
    labels = name.split(".")
    for start in range(len(labels) - 1):
        owner = ".".join(labels[start:])
        records = [text for text in lookup(f"_dmarc.{owner}", "TXT") if _is_dmarc(text)]
        if len(records) > 1:
            return DoctorFinding(
                "DMARC",
                Verdict.PROBLEM,
                f"receivers ignore all {len(records)} records, because only one is allowed",
                f"Delete all but one of the records at _dmarc.{owner}.",
            )
        if records:
            return _policy(records[0], owner, inherited=start > 0)
    return DoctorFinding(
        "DMARC",
        Verdict.PROBLEM,
        "no record: large receivers refuse bulk email without one",
        f"Add a TXT record at _dmarc.{name}: v=DMARC1; p=none; rua=mailto:YOUR-ADDRESS",
    )


def _is_dmarc(text: str) -> bool:
    return text.partition(";")[0].replace(" ", "").lower() == "v=dmarc1"


def _policy(text: str, owner: str, *, inherited: bool) -> DoctorFinding:
    pairs = (tag.partition("=") for tag in text.split(";"))
    tags = {key.strip().lower(): value.strip().lower() for key, _, value in pairs}
    policy = (tags.get("sp") if inherited else None) or tags.get("p", "")
    if policy not in {"none", "quarantine", "reject"}:
        message = f"the record of {owner} has no policy"
        remedy = "It needs p=none, p=quarantine or p=reject."
        return DoctorFinding("DMARC", Verdict.PROBLEM, message, remedy)
    return DoctorFinding("DMARC", Verdict.OK, f"{policy}, from {owner}")


def _dkim(lookup: Lookup, name: str, authenticated: Domain | None) -> DoctorFinding:
    if authenticated is not None:
        hosts = [host for _, host in authenticated.records if "._domainkey." in host]
    else:
        hosts = [f"{selector}._domainkey.{name}" for selector in _SELECTORS]
    missing = [host for host in hosts if not any(map(_is_key, lookup(host, "TXT")))]
    remedy = f"Add the records that SendGrid names: {', '.join(missing)}."
    if not hosts or len(missing) == len(hosts):
        verdict = Verdict.PROBLEM if authenticated is not None else Verdict.WARNING
        return DoctorFinding("DKIM", verdict, "no key found, so signatures are not valid", remedy)
    if missing:
        message = "a key that SendGrid may change to is missing"
        return DoctorFinding("DKIM", Verdict.WARNING, message, remedy)
    return DoctorFinding("DKIM", Verdict.OK, f"keys at {', '.join(hosts)}")


def _is_key(text: str) -> bool:
    tags = (tag.strip() for tag in text.split(";"))
    return any(tag.startswith("p=") and len(tag) > 2 for tag in tags)  # an empty key is revoked


def _spf(lookup: Lookup, domain: Domain) -> DoctorFinding:
    hosts = [
        host
        for kind, host in domain.records
        if kind in {"cname", "txt"} and "._domainkey." not in host and host != domain.name
    ]
    for host in hosts:
        if any(text.lower().startswith("v=spf1") for text in lookup(host, "TXT")):
            return DoctorFinding("SPF", Verdict.OK, f"a record at {host}")
    remedy = f"Add the records that SendGrid names: {', '.join(hosts) or 'see its page'}."
    return DoctorFinding("SPF", Verdict.PROBLEM, "no record where bounces go", remedy)


def _mx(lookup: Lookup, host: str) -> DoctorFinding:
    hosts = lookup(host, "MX")
    if "mx.sendgrid.net" in hosts:
        return DoctorFinding("inbound MX", Verdict.OK, f"SendGrid receives email for {host}")
    receivers = ", ".join(hosts) or "nobody"
    message = f"email for {host} goes to {receivers}"
    remedy = f"Add an MX record at {host}: 10 mx.sendgrid.net"
    return DoctorFinding("inbound MX", Verdict.PROBLEM, message, remedy)


def _base_host(lookup: Lookup, host: str, remedy: str) -> DoctorFinding:
    try:
        addresses: Sequence[str] = [str(ipaddress.ip_address(host))]
    except ValueError:
        addresses = [*lookup(host, "A"), *lookup(host, "AAAA")]
    subject = "site.base_url"
    if not addresses:
        return DoctorFinding(subject, Verdict.PROBLEM, f"DNS has no address of {host}", remedy)
    if not any(ipaddress.ip_address(address).is_global for address in addresses):
        message = f"{host} has only private addresses"
        return DoctorFinding(subject, Verdict.PROBLEM, message, remedy)
    return DoctorFinding(subject, Verdict.OK, f"https://{host} has a public address")
