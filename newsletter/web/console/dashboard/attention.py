"""The list of problems at the top of the overview, most urgent first."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from newsletter.db.orm import Session
from newsletter.issues import store
from newsletter.issues.states import IssueState
from newsletter.scheduling import schedules
from newsletter.sending.ledger import forgotten_sends, provider_backoff
from newsletter.sending.queries import send_list
from newsletter.sending.queries.send_list import SendListEntry
from newsletter.sending.recovery import known_logs
from newsletter.sending.states import SendState
from newsletter.tracking.event_silence import find as event_silence_of
from newsletter.web.sentences import sentence

#: The clock starts due sends each second. A send that is later than this has no running clock.
_LATE = timedelta(minutes=2)
#: A failed run of a schedule is listed for this long.
_RECENT = timedelta(days=7)
_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One problem, with a link to the page where the user resolves it."""

    #: ``bad``, ``warn`` or ``info``.
    kind: str
    what: str
    why: str
    path: str
    at: datetime | None = None


def items(session: Session, *, event_silence: timedelta, now: datetime) -> list[Item]:
    """All problems that do not resolve themselves, and missing events for ``event_silence``."""
    under_way = send_list.active(session, limit=50)
    found = [*_logs(session), *_uncertain(session), *_paused(under_way), *_late(session, now)]
    found += [*_backoffs(session, now), *_silence(session, event_silence, now)]
    return [*found, *_schedules(session, now), *_reviews(session)]


def _logs(session: Session) -> list[Item]:
    path = "/console/sends/departures"
    waits = [
        Item(
            "bad",
            f"Sending is stopped: the departure log of {one.log.host} is {one.log.state}",
            f"{sentence(one.what)} {one.remedy}",
            path,
            one.log.since,
        )
        for one in known_logs.list_logs(session)
        if one.waits
    ]
    uncertain = [
        Item(
            "bad",
            f"{one.people:,} recipients of the issue {one.slug}: the provider did not confirm",
            "They were sent before the database was restored. Wait for events, or resolve them.",
            path,
        )
        for one in forgotten_sends.unanswered(session)
    ]
    return [*waits[:_AT_MOST], *uncertain[:_AT_MOST]]


def _uncertain(session: Session) -> list[Item]:
    return [
        Item(
            "bad",
            f"{people:,} recipients of send {send_id}: the provider did not confirm",
            "Wait for events, or mark the batches as sent or send them again.",
            f"/console/sends/{send_id}#uncertain",
        )
        for send_id, people in list(send_list.uncertain_counts(session).items())[:_AT_MOST]
    ]


def _paused(under_way: list[SendListEntry]) -> list[Item]:
    return [
        Item("warn", f"Paused: {one.title}", one.send.reason, _path(one), one.send.paused_at)
        for one in under_way
        if one.send.state == SendState.PAUSED
    ][:_AT_MOST]


def _late(session: Session, now: datetime) -> list[Item]:
    return [
        Item(
            "bad",
            f"Late: {one.title}",
            "The send is due, but the service that starts sends is not running.",
            _path(one),
            one.send.scheduled_for,
        )
        for one in send_list.scheduled(session, limit=_AT_MOST)
        if one.send.scheduled_for < now - _LATE
    ]


def _backoffs(session: Session, now: datetime) -> list[Item]:
    waits = provider_backoff.in_force(session, now=now)
    if waits is None:
        return []
    sends = "/console/sends"
    if not waits.failures:
        return [Item("warn", "Sending waits for the provider", waits.reason, sends)]
    if not provider_backoff.delays_batches(session, now=now):
        return []
    what = "Sending is stopped: the provider does not accept emails"
    if waits.until <= now:
        return [
            Item("bad", what, f"{waits.reason}. An attempt with a few emails is running.", sends)
        ]
    why = f"{waits.reason}. Next attempt, with a few emails:"
    return [Item("bad", what, why, sends, waits.until)]


def _silence(session: Session, limit: timedelta, now: datetime) -> list[Item]:
    silence = event_silence_of(session, limit=limit, now=now)
    if silence is None:
        return []
    emails = f"{silence.emails:,} email{'' if silence.emails == 1 else 's'}"
    why = f"{emails} left, and no event has come. The first of them left:"
    path = "/console/deliverability"
    return [Item("bad", "The provider reports no events", why, path, silence.since)]


def _schedules(session: Session, now: datetime) -> list[Item]:
    failures = schedules.recent_failures(session, since=now - _RECENT, limit=_AT_MOST)
    return [
        Item(
            "warn",
            f"The schedule {name} sent nothing",
            reason,
            "/console/schedules",
            due_at,
        )
        for name, due_at, reason in failures
    ]


def _reviews(session: Session) -> list[Item]:
    issues = store.listed(session, state=IssueState.REVIEW, limit=_AT_MOST)
    return [
        Item("info", f"Review requested: {one.title}", "", f"/console/issues/{one.slug}", one.since)
        for one in issues
    ]


def _path(entry: SendListEntry) -> str:
    return f"/console/sends/{entry.send.id}"
