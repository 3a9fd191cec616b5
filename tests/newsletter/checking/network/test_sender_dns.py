"""What DNS says of the sender of this very issue."""

import pytest

from newsletter.checking.context import Dns
from newsletter.checking.finding import Level
from newsletter.checking.network.sender_dns import asking
from newsletter.errors import ProviderError, SettingsError
from newsletter.provider.account import Domain
from newsletter.provider.dns_lookups import UnaskedError
from tests.newsletter.checking.conftest import Look

RECORDS = {
    "_dmarc.example.com": ["v=DMARC1; p=quarantine"],
    "s1._domainkey.example.com": ["k=rsa; p=MIGf"],
    "s2._domainkey.example.com": ["k=rsa; p=MIGf"],
    "em1.example.com": ["v=spf1 include:sendgrid.net ~all"],
}
DOMAIN = Domain(
    name="example.com",
    valid=True,
    records=(
        ("cname", "em1.example.com"),
        ("cname", "s1._domainkey.example.com"),
        ("cname", "s2._domainkey.example.com"),
    ),
)


def lookup(name: str, kind: str) -> list[str]:
    return RECORDS.get(name, []) if kind == "TXT" else []


def silent(name: str, kind: str) -> list[str]:
    raise UnaskedError("no resolver")


def test_a_domain_in_order_has_nothing_to_mend(look: Look) -> None:
    assert look("sender_domain", "Hi", dns=lambda _: Dns(lookup, DOMAIN)) == []
    assert look("sender_domain", "Hi") == []


def test_the_issues_own_sender_counts_and_its_line_is_named(look: Look) -> None:
    asked: list[str] = []

    def dns(sender: str) -> Dns:
        asked.append(sender)
        return Dns(lookup, DOMAIN)

    found = look("sender_domain", "Hi", preheader="x\nfrom: me@other.example.org", dns=dns)
    assert asked == ["me@other.example.org"]
    (dmarc,) = [one for one in found if "DMARC" in one.message]
    assert (dmarc.line, dmarc.level) == (4, Level.WARN)
    assert "_dmarc.other.example.org" in dmarc.hint


@pytest.mark.parametrize("answer", [silent, lookup])
def test_what_nobody_answers_is_a_note_and_never_blocks(look: Look, answer) -> None:
    found = look("sender_domain", "Hi", dns=lambda _: Dns(answer))
    assert found
    assert {one.level for one in found} == {Level.NOTE}
    assert "SPF" in found[-1].message


def test_the_account_is_asked_for_the_names_of_its_records(look: Look) -> None:
    def ask(method: str, path: str, **more: object) -> object:
        assert (method, path) == ("get", "whitelabel/domains")
        records = {
            "mail_cname": {"type": "cname", "host": "em1.example.com"},
            "dkim1": {"type": "cname", "host": "s1._domainkey.example.com"},
        }
        return [{"domain": "example.com", "valid": True, "dns": records}]

    assert look("sender_domain", "Hi", dns=asking(lookup, lambda: ask)) == []


@pytest.mark.parametrize("error", [SettingsError("no key"), ProviderError("401")])
def test_an_account_that_cannot_be_asked_leaves_dns_alone(look: Look, error: Exception) -> None:
    def account() -> object:
        raise error

    (note,) = look("sender_domain", "Hi", dns=asking(lookup, account))
    assert "SPF" in note.message
