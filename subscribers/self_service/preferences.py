"""What subscribers decide about their own subscription: topics, a pause, the language.

These changes take effect at once. Changes of the address and requests for data or erasure need
a confirmation by email: see ``subscribers.self_service.confirmed_requests``.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from newsletter.db.orm import Session, table_of
from newsletter.errors import UserError
from subscribers import rate_limit
from subscribers.consent import suppression, topics
from subscribers.models import (
    Confirmation,
    Consent,
    Subscriber,
    Subscription,
    SuppressionReason,
    Topic,
)

_subscriber = table_of(Subscriber)
_subscription, _topic = table_of(Subscription), table_of(Topic)
_confirmation = table_of(Confirmation)

MAX_PAUSE_WEEKS = 26
#: A pause of as many weeks, requested again within this time, is the same pause.
_SAME_PAUSE = timedelta(days=1)
_CHANGES, _AN_HOUR = 30, timedelta(hours=1)
#: The source of consent records for changes by the subscriber.
_SOURCE = "preferences"


class PreferenceError(UserError):
    """A request that cannot be granted as it was made."""


class ChangedTooOftenError(PreferenceError):
    """More changes within an hour than a person makes. Each change adds a consent record."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A topic, and whether the subscriber has chosen it."""

    slug: str
    name: str
    description: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Preferences:
    """The current choices of a subscriber."""

    subscriber_id: int
    email: str
    language: str | None
    #: The end of a pause that is not over yet.
    paused_until: datetime | None
    #: The address bounced: it is suppressed until the subscriber changes it.
    bounced: bool
    topics: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class PreferenceChoice:
    """The new choices of a subscriber."""

    topics: Collection[str]
    language: str | None
    #: Weeks from now; 0 ends a pause, None changes nothing.
    pause_weeks: int | None = None

    def __post_init__(self) -> None:
        if self.pause_weeks is not None and not 0 <= self.pause_weeks <= MAX_PAUSE_WEEKS:
            raise PreferenceError(
                f"a pause lasts up to {MAX_PAUSE_WEEKS} weeks", hint="Choose one from the list."
            )


def view(session: Session, subscriber_id: int, *, now: datetime) -> Preferences | None:
    """A subscriber's choices; None if they unsubscribed or there is no such id."""
    person = session.get(Subscriber, subscriber_id)
    if person is None:
        return None
    reason = suppression.reason_of(session, person.address_hash)
    if reason not in {None, SuppressionReason.BOUNCED}:
        return None
    rows = session.execute(
        select(_topic, _subscription.c.since.is_not(None).label("chosen"))
        .outerjoin(
            _subscription,
            (_subscription.c.topic_id == _topic.c.id)
            & (_subscription.c.subscriber_id == subscriber_id),
        )
        # Whoever chose a hidden topic must be able to leave it.
        .where(~_topic.c.hidden | _subscription.c.since.is_not(None))
        .order_by(*topics.ORDER)
    )
    paused = person.paused_until
    return Preferences(
        subscriber_id,
        person.email,
        person.language,
        paused if paused and paused > now else None,
        bounced=reason is not None,
        topics=tuple(Offer(row.slug, row.name, row.description, bool(row.chosen)) for row in rows),
    )


def save(session: Session, subscriber_id: int, choice: PreferenceChoice, *, now: datetime) -> bool:
    """Apply new choices. Returns False, and changes nothing, if there is no such subscriber.

    A topic that no longer exists is ignored: it was deleted while the form was open. A choice
    that changes nothing writes nothing. Raises ChangedTooOftenError for more changes within an
    hour than a person makes.
    """
    person = lock(session, subscriber_id)
    before = view(session, subscriber_id, now=now)
    if person is None or before is None:
        return False
    added = [o for o in before.topics if o.slug in choice.topics and not o.chosen]
    dropped = [o for o in before.topics if o.slug not in choice.topics and o.chosen]
    paused = person.paused_until
    if choice.pause_weeks is not None:
        weeks = timedelta(weeks=choice.pause_weeks)
        paused = now + weeks if weeks else None
        if paused and before.paused_until and abs(paused - before.paused_until) < _SAME_PAUSE:
            paused = person.paused_until
    if (
        not added
        and not dropped
        and (paused, choice.language)
        == (
            person.paused_until,
            person.language,
        )
    ):
        return True
    key = rate_limit.key_of(person.address_hash, "preferences", "")
    if not rate_limit.hit(session, key, limit=_CHANGES, window=_AN_HOUR, now=now):
        raise ChangedTooOftenError(
            "these preferences were changed too often within an hour",
            hint="Nothing was saved. Try again later. You can still unsubscribe at any time.",
        )
    person.language, person.paused_until = choice.language, paused
    session.add(person)
    topics.choose(session, subscriber_id, [offer.slug for offer in added], now=now)
    topics.drop(session, subscriber_id, [offer.slug for offer in dropped], now=now)
    for act, offers in (("confirmed", added), ("withdrawn", dropped)):
        if offers:
            names = ", ".join(offer.name for offer in offers)
            record(session, subscriber_id, act, wording=f"Topics: {names}", now=now)
    session.flush()
    return True


def record(
    session: Session,
    subscriber_id: int,
    act: str,
    *,
    wording: str,
    now: datetime,
    source: str = _SOURCE,
) -> None:
    """Add to the subscriber's consent records; does nothing if there is no such subscriber."""
    known = select(_subscriber.c.id).where(_subscriber.c.id == subscriber_id)
    # The lock prevents an erasure between this check and the insert.
    if session.scalar(known.with_for_update(read=True, key_share=True)) is not None:
        session.add(
            Consent(
                subscriber_id=subscriber_id, at=now, act=act, source=source, wording=wording[:2000]
            )
        )
        session.flush()


def unsubscribable_address(session: Session, subscriber_id: int) -> str | None:
    """The address of a subscriber for whom unsubscribing would change something, or None.

    Those who unsubscribed or complained are out already. Unsubscribing again still changes
    something for them if it ends a confirmation link that was sent since. The subscriber's row is
    locked until the transaction ends, so that of two requests at once, the second sees what the
    first did.
    """
    person = lock(session, subscriber_id)
    if person is None:
        return None
    row = suppression.find(session, person.address_hash)
    match row.reason if row is not None else None:
        case None | SuppressionReason.BOUNCED:
            return person.email
        case SuppressionReason.MANUAL:
            underlying = row.underlying_reason if row is not None else None
            return person.email if underlying in {None, SuppressionReason.BOUNCED} else None
        case SuppressionReason.ERASED:
            return None
    assert row is not None
    open_link = (
        _confirmation.c.address_hash == person.address_hash,
        _confirmation.c.created_at >= row.at,
        _confirmation.c.done_at.is_(None),
    )
    return person.email if session.scalar(select(1).where(*open_link).limit(1)) else None


def lock(session: Session, subscriber_id: int) -> Subscriber | None:
    """The subscriber as stored now, locked until the transaction ends; None if there is none."""
    return session.get(Subscriber, subscriber_id, with_for_update=True, populate_existing=True)
