"""Which addresses lead into one mailbox, as far as its provider says so. For limits only.

Mail to ``ada+1@…``, ``a.da@gmail.com`` and ``ada@googlemail.com`` fills one inbox, so they share
its limits. Two people who were taken for one would only share a limit: where a provider's rule
is not known, the address behind its tag counts. People are never told apart by this.
"""

from typing import Final

from subscribers.email_address import Address

#: Domain → the one that stands for all of a provider's, where each user has the same name in all.
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
#: Signs that a provider passes over in a name.
#: https://support.google.com/mail/answer/7436150 (dots);
#: https://proton.me/support/addresses-and-aliases (dots, hyphens, underscores).
_PASSED_OVER: Final = {"gmail.com": ".", "proton.me": ".-_"}
#: Behind these begins a tag. The plus is RFC 5233's, and usual: Gmail, Outlook, Fastmail, Proton,
#: iCloud and most servers know it. Yahoo's disposable addresses have a hyphen
#: (https://help.yahoo.com/kb/SLN28815.html).
_YAHOO: Final = ("yahoo.", "ymail.com", "rocketmail.com", "aol.com", "myyahoo.com")
#: Fastmail gives a user all addresses of a domain below its own: x@ada.fastmail.com.
_BELOW: Final = ("fastmail.com", "fastmail.fm")
#: Domains that many people share. A limit of all of them together would keep strangers out; the
#: limit of the single mailbox holds.
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
    """What all addresses of one mailbox share."""
    local, _, domain = address.identity.rpartition("@")
    for host in _BELOW:
        if domain.endswith(f".{host}"):
            local, domain = domain.removesuffix(f".{host}").rpartition(".")[2], host
    domain = _SAME.get(domain, domain)
    tags = "+-" if domain.startswith(_YAHOO) else "+"
    name = local
    for sign in tags:
        # What a tag leaves may not end with a dot.
        name = name.partition(sign)[0].rstrip(".") or name
    folded = name.translate(dict.fromkeys(map(ord, _PASSED_OVER.get(domain, ""))))
    return f"{folded or name}@{domain}"


def house_of(address: Address) -> str | None:
    """The domain whose addresses may all be one person's; None for one that many people share.

    Names below it count with it: whoever owns a domain makes as many of them as they like.
    """
    domain = address.domain
    domain = _SAME.get(domain, domain)
    if domain in SHARED or domain.startswith("yahoo."):
        return None
    labels = domain.split(".")
    # Like example.co.uk: registries below a country have short names.
    kept = 3 if len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3 else 2
    return ".".join(labels[-kept:])
