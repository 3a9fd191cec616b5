"""Finds which addresses lead to the same mailbox, by the rules of each provider, for rate limits.

Email to ``ada+1@…``, ``a.da@gmail.com`` and ``ada@googlemail.com`` reaches one inbox, so these
share its limits. If two people were mistaken for one, they would only share a limit. Where a
provider's rule is unknown, the address without its tag counts. Subscribers are never merged by
this.
"""

from typing import Final

from subscribers.email_address import Address

#: Domain → the provider's main domain, where each user has the same name in all its domains.
_SAME: Final = {
    "googlemail.com": "gmail.com",
    "me.com": "icloud.com",
    "mac.com": "icloud.com",
    "protonmail.com": "proton.me",
    "protonmail.ch": "proton.me",
    "pm.me": "proton.me",
    "yandex.ru": "yandex.com",
    "ya.ru": "yandex.com",
}
#: Characters that a provider ignores in a local part.
#: https://support.google.com/mail/answer/7436150 (dots);
#: https://proton.me/support/addresses-and-aliases (dots, hyphens, underscores).
_IGNORED: Final = {"gmail.com": ".", "proton.me": ".-_"}
#: Tags begin with a plus (RFC 5233) at Gmail, Outlook, Fastmail, Proton, iCloud and most servers.
#: Yahoo's disposable addresses use a hyphen (https://help.yahoo.com/kb/SLN28815.html).
_YAHOO: Final = ("yahoo.", "ymail.com", "rocketmail.com", "aol.com", "myyahoo.com")
#: Fastmail gives each user all addresses of a subdomain: x@ada.fastmail.com.
_BELOW: Final = ("fastmail.com", "fastmail.fm")
#: Domains that many people share. One limit for a whole domain would block strangers, so only
#: the limit of the single mailbox applies.
SHARED: Final = frozenset(
    """
    gmail.com icloud.com proton.me yandex.com fastmail.com fastmail.fm outlook.com outlook.de
    outlook.fr hotmail.com hotmail.co.uk hotmail.de hotmail.fr hotmail.it hotmail.es live.com
    live.nl msn.com ymail.com rocketmail.com myyahoo.com aol.com gmx.de gmx.net gmx.at gmx.ch
    gmx.com mail.com web.de t-online.de freenet.de orange.fr wanadoo.fr free.fr laposte.net sfr.fr
    libero.it virgilio.it tin.it btinternet.com sky.com talktalk.net ntlworld.com comcast.net
    verizon.net att.net sbcglobal.net bellsouth.net cox.net charter.net shaw.ca rogers.com
    bigpond.com optusnet.com.au xtra.co.nz mail.ru inbox.ru bk.ru list.ru rambler.ru qq.com
    163.com 126.com sina.com naver.com daum.net hanmail.net rediffmail.com uol.com.br bol.com.br
    terra.com.br seznam.cz centrum.cz wp.pl o2.pl onet.pl interia.pl ukr.net hey.com tutanota.com
    tuta.com posteo.de mailbox.org zoho.com docomo.ne.jp ezweb.ne.jp softbank.ne.jp bluewin.ch
    telenet.be ziggo.nl kpnmail.nl telia.com online.no
    """.split()
)


def mailbox_of(address: Address) -> str:
    """A key that all addresses of one mailbox share."""
    local, _, domain = address.identity.rpartition("@")
    for host in _BELOW:
        if domain.endswith(f".{host}"):
            local, domain = domain.removesuffix(f".{host}").rpartition(".")[2], host
    domain = _SAME.get(domain, domain)
    tags = "+-" if domain.startswith(_YAHOO) else "+"
    name = local
    for sign in tags:
        # What is left of a tag may not end with a dot.
        name = name.partition(sign)[0].rstrip(".") or name
    folded = name.translate(dict.fromkeys(map(ord, _IGNORED.get(domain, ""))))
    return f"{folded or name}@{domain}"


def private_domain_of(address: Address) -> str | None:
    """The domain whose addresses may all be one person's; None if many people share it.

    Subdomains count with it: the owner of a domain can create as many as they like.
    """
    domain = address.domain
    domain = _SAME.get(domain, domain)
    if domain in SHARED or domain.startswith("yahoo."):
        return None
    labels = domain.split(".")
    # Like example.co.uk: registries under a country code have short names.
    kept = 3 if len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3 else 2
    return ".".join(labels[-kept:])
