"""What a person decides about their own subscription: topics, a pause, the language.

It takes effect at once. What touches their identity or their data waits for a further
mail: see ``subscribers.self_service.confirmed_requests``.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from newsletter.db.orm import Session, table_of
from newsletter.errors import UserError
from subscribers import rate_limit
from subscribers.consent import topics
from subscribers.models import (
    Confirmation,
    Consent,
    Subscriber,
    Subscription,
    Suppression,
    SuppressionReason,
    Topic,
)

_subscriber, _suppression = table_of(Subscriber), table_of(Suppression)
_subscription, _topic = table_of(Subscription), table_of(Topic)
_confirmation = table_of(Confirmation)

MAX_PAUSE_WEEKS = 26
#: A pause of as many weeks, asked for once more within so long, is the same pause.
_SAME_PAUSE = timedelta(days=1)
_CHANGES, _AN_HOUR = 30, timedelta(hours=1)
#: Where consent and leaving by the person's own hand are recorded to come from.
_SOURCE = "preferences"


class PreferenceError(UserError):
    """A wish that cannot be granted as it was expressed."""


class ChangedTooOftenError(PreferenceError):
    """More changes within an hour than a person makes: each is a record of consent."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A topic, and whether the person has chosen it."""

    slug: str
    name: str
    description: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a person has decided so far."""

    subscriber_id: int
    email: str
    language: str | None
    #: The end of a pause that is not over yet.
    paused_until: datetime | None
    #: Mail to the address came back: it gets none until it is changed.
    bounced: bool
    topics: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class PreferenceChoice:
    """What a person wants from now on."""

    topics: Collection[str]
    language: str | None
    #: Weeks from now; 0 ends a pause, None leaves everything as it is.
    pause_weeks: int | None = None

    def __post_init__(self) -> None:
        if self.pause_weeks is not None and not 0 <= self.pause_weeks <= MAX_PAUSE_WEEKS:
            raise PreferenceError(
                f"a pause lasts up to {MAX_PAUSE_WEEKS} weeks", hint="Choose one from the list."
            )


def view(session: Session, subscriber_id: int, *, now: datetime) -> Preferences | None:
    """A person's decisions; None when they have left or nobody is known by that number."""
    person = session.get(Subscriber, subscriber_id)
    if person is None:
        return None
    reason = suppressed(session, person.address_hash)
    if reason not in {None, SuppressionReason.BOUNCED}:
        return None
    rows = session.execute(
        select(_topic, _subscription.c.since.is_not(None).label("chosen"))
        .outerjoin(
            _subscription,
            (_subscription.c.topic_id == _topic.c.id)
            & (_subscription.c.subscriber_id == subscriber_id),
        )
        .order_by(_topic.c.name, _topic.c.slug)
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
    """Put a choice into effect; False, and nothing happens, for somebody who is not there.

    A topic that is no longer offered is passed over: it went while the form stood open. What
    changes nothing writes nothing; ChangedTooOftenError when so much changed within the hour
    that no person does it.
    """
    person = held(session, subscriber_id)
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
            "these preferences were changed many times within the hour",
            hint="Nothing was saved. Try again later; you can leave at any time.",
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
    """Add to the person's record of consent; nothing for somebody who is not there."""
    known = select(_subscriber.c.id).where(_subscriber.c.id == subscriber_id)
    # The lock keeps the row from being erased between the look and the insert.
    if session.scalar(known.with_for_update(read=True, key_share=True)) is not None:
        session.add(
            Consent(
                subscriber_id=subscriber_id, at=now, act=act, source=source, wording=wording[:2000]
            )
        )
        session.flush()


def still_here(session: Session, subscriber_id: int) -> str | None:
    """The address of somebody whom leaving would change something for; None for nobody like that.

    Whoever left or complained has left. But their leaving again ends a confirmation link that was
    sent since. The person is held until the transaction ends, so that of two posts at once the
    second finds the first one's work.
    """
    person = held(session, subscriber_id)
    if person is None:
        return None
    barred = session.execute(
        select(_suppression).where(_suppression.c.address_hash == person.address_hash)
    ).one_or_none()
    match barred.reason if barred is not None else None:
        case None | SuppressionReason.BOUNCED:
            return person.email
        case SuppressionReason.MANUAL:
            told = barred.underlying_reason if barred is not None else None
            return person.email if told in {None, SuppressionReason.BOUNCED} else None
        case SuppressionReason.ERASED:
            return None
    assert barred is not None
    waits = (
        _confirmation.c.address_hash == person.address_hash,
        _confirmation.c.created_at >= barred.at,
        _confirmation.c.done_at.is_(None),
    )
    return person.email if session.scalar(select(1).where(*waits).limit(1)) else None


def held(session: Session, subscriber_id: int) -> Subscriber | None:
    """The person, as they are now, and nobody else's to change until the transaction ends."""
    return session.get(Subscriber, subscriber_id, with_for_update=True, populate_existing=True)


def suppressed(session: Session, address_hash: bytes) -> str | None:
    """Why this address must not be mailed; None when it may."""
    return session.scalar(
        select(_suppression.c.reason).where(_suppression.c.address_hash == address_hash)
    )
