"""What DNS says of the names that we use: whether receivers believe our mails, and find us.

DMARC is looked for upwards from the sender's domain; SPF and DKIM under the names that
SendGrid gave to the domain, since its bounces come back there and not to us.
"""

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from newsletter.doctor.account import DoctorFinding, Verdict
from newsletter.provider.account import Domain
from newsletter.provider.dns_lookups import Lookup, UnaskedError, is_public_name

#: SendGrid's selectors, where nobody says otherwise.
_SELECTORS = ("s1", "s2")


def of_domain(
    lookup: Lookup, name: str, authenticated: Domain | None, *, inbound_host: str = ""
) -> Iterator[DoctorFinding]:
    """What DNS says of the sender's domain, and of the host that takes mail for us."""
    yield _asked("DMARC", lambda: _dmarc(lookup, name))
    yield _asked("DKIM", lambda: _dkim(lookup, name, authenticated))
    if authenticated is not None:
        yield _asked("SPF", lambda: _spf(lookup, authenticated))
    if inbound_host:
        yield _asked("inbound MX", lambda: _mx(lookup, inbound_host))


def of_base_url(lookup: Lookup, base_url: str) -> DoctorFinding:
    """Whether readers and SendGrid reach us there."""
    subject, parts = "site.base_url", urlsplit(base_url)
    host = parts.hostname or ""
    mend = "Set site.base_url to the https address that a proxy serves from outside."
    if parts.scheme != "https":
        return DoctorFinding(subject, Verdict.PROBLEM, f"{base_url} is not https", mend)
    if not is_public_name(host):
        return DoctorFinding(subject, Verdict.PROBLEM, f"{host} is not reached from outside", mend)
    return _asked(subject, lambda: _reached(lookup, host, mend))


def _asked(subject: str, check: Callable[[], DoctorFinding]) -> DoctorFinding:
    try:
        return check()
    except UnaskedError as error:
        return DoctorFinding(subject, Verdict.UNKNOWN, f"DNS could not be asked: {error}")


def _dmarc(lookup: Lookup, name: str) -> DoctorFinding:
    labels = name.split(".")
    for start in range(len(labels) - 1):
        owner = ".".join(labels[start:])
        found = [text for text in lookup(f"_dmarc.{owner}", "TXT") if _is_dmarc(text)]
        if len(found) > 1:
            mend = f"Leave one of the records at _dmarc.{owner}."
            return DoctorFinding(
                "DMARC", Verdict.PROBLEM, f"{len(found)} records count as none", mend
            )
        if found:
            return _policy(found[0], owner, inherited=start > 0)
    mend = f"Add a TXT record at _dmarc.{name}: v=DMARC1; p=none; rua=mailto:YOUR-ADDRESS"
    found_words = "no record: large receivers refuse mail to many"
    return DoctorFinding("DMARC", Verdict.PROBLEM, found_words, mend)


def _is_dmarc(text: str) -> bool:
    return text.partition(";")[0].replace(" ", "").lower() == "v=dmarc1"


def _policy(text: str, owner: str, *, inherited: bool) -> DoctorFinding:
    pairs = (tag.partition("=") for tag in text.split(";"))
    tags = {key.strip().lower(): value.strip().lower() for key, _, value in pairs}
    policy = (tags.get("sp") if inherited else None) or tags.get("p", "")
    if policy not in {"none", "quarantine", "reject"}:
        mend = "It needs p=none, p=quarantine or p=reject."
        return DoctorFinding("DMARC", Verdict.PROBLEM, f"the record of {owner} has no policy", mend)
    return DoctorFinding("DMARC", Verdict.OK, f"{policy}, from {owner}")


def _dkim(lookup: Lookup, name: str, authenticated: Domain | None) -> DoctorFinding:
    if authenticated is not None:
        hosts = [host for _, host in authenticated.records if "._domainkey." in host]
    else:
        hosts = [f"{selector}._domainkey.{name}" for selector in _SELECTORS]
    missing = [host for host in hosts if not any(map(_is_key, lookup(host, "TXT")))]
    mend = f"Add the records that SendGrid names: {', '.join(missing)}."
    if not hosts or len(missing) == len(hosts):
        bad = Verdict.PROBLEM if authenticated is not None else Verdict.WARNING
        return DoctorFinding("DKIM", bad, "no key is found, so signatures do not hold", mend)
    if missing:
        found = "a key that SendGrid may change to is missing"
        return DoctorFinding("DKIM", Verdict.WARNING, found, mend)
    return DoctorFinding("DKIM", Verdict.OK, f"keys at {', '.join(hosts)}")


def _is_key(text: str) -> bool:
    tags = (tag.strip() for tag in text.split(";"))
    return any(tag.startswith("p=") and len(tag) > 2 for tag in tags)  # an empty one is revoked


def _spf(lookup: Lookup, domain: Domain) -> DoctorFinding:
    hosts = [
        host
        for kind, host in domain.records
        if kind in {"cname", "txt"} and "._domainkey." not in host and host != domain.name
    ]
    for host in hosts:
        if any(text.lower().startswith("v=spf1") for text in lookup(host, "TXT")):
            return DoctorFinding("SPF", Verdict.OK, f"a record at {host}")
    mend = f"Add the records that SendGrid names: {', '.join(hosts) or 'see its page'}."
    return DoctorFinding("SPF", Verdict.PROBLEM, "no record where SendGrid takes bounces", mend)


def _mx(lookup: Lookup, host: str) -> DoctorFinding:
    hosts = lookup(host, "MX")
    if "mx.sendgrid.net" in hosts:
        return DoctorFinding("inbound MX", Verdict.OK, f"{host} is received by SendGrid")
    there = ", ".join(hosts) or "nobody"
    mend = f"Add an MX record at {host}: 10 mx.sendgrid.net"
    return DoctorFinding("inbound MX", Verdict.PROBLEM, f"{host} is received by {there}", mend)


def _reached(lookup: Lookup, host: str, mend: str) -> DoctorFinding:
    try:
        addresses: Sequence[str] = [str(ipaddress.ip_address(host))]
    except ValueError:
        addresses = [*lookup(host, "A"), *lookup(host, "AAAA")]
    subject = "site.base_url"
    if not addresses:
        return DoctorFinding(subject, Verdict.PROBLEM, f"DNS knows no address of {host}", mend)
    if not any(ipaddress.ip_address(address).is_global for address in addresses):
        found = f"{host} has private addresses only"
        return DoctorFinding(subject, Verdict.PROBLEM, found, mend)
    return DoctorFinding(subject, Verdict.OK, f"https://{host} has a public address")
