"""Rate limits for sign-in attempts, by account and by network.

An attacker in one network does not lock the account for its owner in another network, because the
limit of an account and a network is reached long before that of the account. Only attempts from
many networks can reach the account's own limit.
"""

from datetime import datetime, timedelta

from newsletter.db.orm import Session
from subscribers.rate_limit import hit, key_of, network_of

#: The time after which attempts no longer count.
WINDOW = timedelta(minutes=15)
#: The limit of an account over all networks, as a multiple of that from one network.
_ALL_NETWORKS = 10
#: Codes have six digits, so the limits make guessing them for a day hopeless.
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
    """Count a sign-in attempt; False when there were too many."""
    network = network_of(network)
    limits = (
        ("sign-in network", network, per_network),
        ("sign-in pair", f"{account}\0{network}", per_account),
        ("sign-in account", account, per_account * _ALL_NETWORKS),
    )
    # Every limit is counted each time, so that the time reveals nothing. An attempt that one limit
    # refuses does not count for those after it, or a single network could fill the account's limit.
    passed = True
    for purpose, value, limit in limits:
        key = key_of(secret, purpose, value)
        passed &= hit(session, key, limit=limit if passed else 0, window=WINDOW, now=now)
    return passed


def may_try_code(
    session: Session, secret: bytes, *, user_id: int, now: datetime, recovery: bool = False
) -> bool:
    """Count an attempt with a code; False when there were too many.

    Recovery codes have their own limits. Otherwise an attacker who knows the password could use up
    all attempts and keep the owner out.
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
    """Count a request for a reset email; False when there were too many from this network."""
    key = key_of(secret, "reset network", network_of(network))
    return hit(session, key, limit=per_network, window=WINDOW, now=now)


def may_get_mail(session: Session, secret: bytes, *, account: str, now: datetime) -> bool:
    """Count a reset email to this account; False when there were too many."""
    key = key_of(secret, "reset account", account)
    return hit(session, key, limit=_MAILS, window=timedelta(hours=1), now=now)
