"""Add, edit, suppress and erase subscribers.

The audit log names subscribers by their number only, because it outlives their erasure.
"""

from datetime import datetime
from typing import Any

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session
from newsletter.tracking.people import privacy
from subscribers.consent import suppression
from subscribers.directory import edit as subscriber_edit
from subscribers.directory.edit import Details, EditError
from subscribers.models import Subscriber, SuppressionReason

_REASON_LENGTH = 500


def add(
    session: Session,
    email: str,
    details: Details,
    *,
    by: Actor,
    now: datetime,
    address_key: bytes,
    wording: str,
) -> int:
    """Add a subscriber who consented elsewhere; returns their number.

    ``wording`` says what they consented to and how. Raises AddressError if ``email`` is not an
    address, and EditError if it is taken or suppressed, or ``wording`` is empty.
    """
    subscriber_id = subscriber_edit.add(
        session, email, details, address_key=address_key, wording=wording, now=now
    )
    _record(session, by, "subscriber added", subscriber_id, now)
    return subscriber_id


def edit(
    session: Session,
    subscriber_id: int,
    details: Details,
    *,
    by: Actor,
    now: datetime,
    seen: str,
    wording: str,
) -> list[str]:
    """Change a subscriber's details; returns the names of the changed ones.

    Raises EditError if ``seen`` (``subscriber_edit.stamp``) is not the stamp of the current
    details, or a topic is added and ``wording`` does not say what the subscriber consented to.
    """
    changed = subscriber_edit.edit(
        session, subscriber_id, details, seen=seen, wording=wording, now=now
    )
    if changed:
        _record(session, by, f"subscriber changed: {', '.join(changed)}", subscriber_id, now)
    return changed


def suppress(
    session: Session, subscriber_id: int, *, by: Actor, now: datetime, reason: str
) -> None:
    """Send this subscriber no more email. Raises EditError if there is no reason."""
    reason = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    if not reason:
        raise EditError("give a reason", place="why", hint="It is kept with the suppression.")
    suppression.add(
        session,
        [subscriber_id],
        SuppressionReason.MANUAL,
        at=now,
        evidence=f"by {by.name}: {reason[:_REASON_LENGTH]}",
    )
    _record(session, by, "subscriber suppressed", subscriber_id, now)


def lift_suppression(
    session: Session, subscriber: Subscriber, *, by: Actor, now: datetime
) -> str | None:
    """Lift a suppression by an operator; returns the reason that remains, if there is one.

    Raises LiftError for a suppression of another reason: an unsubscribed address stays so.
    """
    evidence = f"an operator's suppression was lifted by {by.name}"
    remains = suppression.lift_manual(session, subscriber.address_hash, evidence=evidence)
    still = f", still suppressed: {remains}" if remains else ""
    assert subscriber.id is not None
    _record(session, by, f"suppression lifted{still}", subscriber.id, now)
    return remains


def export_data(
    session: Session, subscriber_id: int, *, by: Actor, now: datetime
) -> dict[str, Any]:
    """Everything that is stored about a subscriber, ready for JSON.

    Raises UserError if there is no subscriber of this number.
    """
    everything = privacy.data_of(session, subscriber_id)
    _record(session, by, "subscriber's data exported", subscriber_id, now)
    return everything


def erase(session: Session, subscriber_id: int, *, by: Actor, now: datetime) -> None:
    """Delete everything that identifies a subscriber; a hash of the address stays suppressed.

    Raises UserError if there is no subscriber of this number.
    """
    privacy.erase(session, subscriber_id, now=now)
    _record(session, by, "subscriber erased", subscriber_id, now)


def _record(session: Session, by: Actor, action: str, subscriber_id: int, now: datetime) -> None:
    audit.record(session, by, action, now=now, subject=f"subscriber {subscriber_id}")
