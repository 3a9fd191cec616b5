"""How often somebody may try to get in, by account and by network address.

An account is not locked for everybody: who tries from one network is stopped long before
the owner, who sits in another, notices anything, however long they go on. Only who tries from
many networks can fill an account's own limit.
"""

from datetime import datetime, timedelta

from newsletter.db.orm import Session
from subscribers.rate_limit import hit, key_of, network_of

#: When a full limit may have opened again.
WINDOW = timedelta(minutes=15)
#: So many times the tries from one network may come from all networks together.
_ALL_NETWORKS = 10
#: Codes have six digits: a day of guessing may not come near.
_CODES, _CODES_A_DAY = 10, 30
_MAILS = 3


def may_try(
    session: Session,
    secret: bytes,
    *,
    account: str,
    network: str,
    per_account: int,
    per_network: int,
    now: datetime,
) -> bool:
    """Count a try to sign in; False when there were too many."""
    network = network_of(network)
    limits = (
        ("sign-in network", network, per_network),
        ("sign-in pair", f"{account}\0{network}", per_account),
        ("sign-in account", account, per_account * _ALL_NETWORKS),
    )
    # All of them each time: how long it takes tells nothing. What one of them refuses fills none
    # of those after it, or a single network could fill the account's own.
    passed = True
    for purpose, value, limit in limits:
        key = key_of(secret, purpose, value)
        passed &= hit(session, key, limit=limit if passed else 0, window=WINDOW, now=now)
    return passed


def may_try_code(
    session: Session, secret: bytes, *, user_id: int, now: datetime, recovery: bool = False
) -> bool:
    """Count a try to bring a code; False when there were too many.

    Recovery codes have limits of their own: who knows the password could use up all tries of
    the app's codes, and keep the owner out for as long as they go on.
    """
    kind = "recovery code" if recovery else "code"
    for purpose, limit, window in (
        (kind, _CODES, WINDOW),
        (f"{kind} a day", _CODES_A_DAY, timedelta(days=1)),
    ):
        key = key_of(secret, purpose, str(user_id))
        if not hit(session, key, limit=limit, window=window, now=now):
            return False
    return True


def may_ask_for_mail(
    session: Session, secret: bytes, *, network: str, per_network: int, now: datetime
) -> bool:
    """Count a wish for a mail with a link; False when there were too many from this network."""
    key = key_of(secret, "reset network", network_of(network))
    return hit(session, key, limit=per_network, window=WINDOW, now=now)


def may_get_mail(session: Session, secret: bytes, *, account: str, now: datetime) -> bool:
    """Count a mail to this account; False when it got enough of them."""
    key = key_of(secret, "reset account", account)
    return hit(session, key, limit=_MAILS, window=timedelta(hours=1), now=now)
