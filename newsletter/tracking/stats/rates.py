"""Rates of a send, computed from its counters as docs/reference/metrics.md defines them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from newsletter.db.orm import Session
from newsletter.issues.parsing.tracking_flags import TRACK_EVERYTHING, Tracked
from newsletter.provider.events import EventKind
from newsletter.sending.models import Send
from newsletter.sending.queries import send_status
from newsletter.tracking.stats import counters

#: The final events of an email. A domain's emails are counted by them: deliveries do not store
#: the domain.
FINAL_EVENTS = (EventKind.DELIVERED, EventKind.BOUNCE, EventKind.BLOCKED, EventKind.DROPPED)
#: Rates and counters that are unknown where opens, or clicks, are not measured.
_OF_OPENS = frozenset({"opened", "opens", "open", "machine_open", "clicked_of_openers"})
_FIGURES = frozenset({"opened", "open", "machine_open", "clicked", "click", "machine_click"})
_OF_CLICKS = frozenset({"clicked", "clicks", "click", "machine_click", "clicked_of_openers"})


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares from 0 to 1; None where there is nothing to divide by, or it is not measured."""

    #: Of the emails accepted by the provider (of a domain: of those with a final event).
    delivered: float | None
    bounced: float | None
    blocked: float | None
    #: Of the emails delivered: recipients, each once, without bots.
    opened: float | None
    clicked: float | None
    complained: float | None
    unsubscribed: float | None
    #: Of the recipients who opened or clicked.
    clicked_of_openers: float | None
    #: Opens and clicks for each email delivered, repeats included.
    opens: float | None
    clicks: float | None


@dataclass(frozen=True, slots=True)
class Performance:
    """The counters of a send, or of the part of it that went to one domain."""

    sent: int
    figures: Mapping[str, int]
    tracked: Tracked = TRACK_EVERYTHING

    def measures(self, name: str) -> bool:
        """Whether a rate or a counter of this name is measured in this send."""
        return name not in _unmeasured(self.tracked)

    @property
    def rates(self) -> Rates:
        """The rates of these counters."""
        of = self.figures
        delivered = of.get(EventKind.DELIVERED, 0)
        unmeasured = _unmeasured(self.tracked)
        rates = Rates(
            delivered=_share(delivered, self.sent),
            bounced=_share(of.get(EventKind.BOUNCE, 0), self.sent),
            blocked=_share(of.get(EventKind.BLOCKED, 0), self.sent),
            opened=_share(of.get("opened", 0), delivered),
            clicked=_share(of.get("clicked", 0), delivered),
            complained=_share(of.get("complained", 0), delivered),
            unsubscribed=_share(of.get("left", 0), delivered),
            clicked_of_openers=_share(of.get("clicked", 0), of.get("opened", 0)),
            opens=_share(of.get(EventKind.OPEN, 0), delivered),
            clicks=_share(of.get(EventKind.CLICK, 0), delivered),
        )
        unknown = {one.name: None for one in fields(rates) if one.name in unmeasured}
        return replace(rates, **unknown) if unknown else rates


def of_send(session: Session, send_id: int) -> Performance:
    """The performance of a send; SendError when there is no such send."""
    return of_sends(session, [send_status.find(session, send_id)])[send_id]


def of_sends(session: Session, sends: Sequence[Send]) -> dict[int, Performance]:
    """Send → its performance; the same few queries for one send and for a hundred."""
    figures = counters.of_sends(session, [send.id for send in sends])
    of = {send.id: tracked_of(send) for send in sends}
    return {
        send_id: Performance(people, figures.get(send_id, {}), of[send_id])
        for send_id, people in send_status.accepted_count(session, sends).items()
    }


def tracked_of(send: Send) -> Tracked:
    """Whether a send measures clicks and opens."""
    return Tracked(clicks=send.track_clicks, opens=send.track_opens)


def measured_counters(figures: Mapping[str, int], tracked: Tracked) -> dict[str, int | None]:
    """The counters, with None (and not 0) for those that are not measured."""
    unmeasured = _unmeasured(tracked) & _FIGURES
    measured: dict[str, int | None] = {k: n for k, n in figures.items() if k not in unmeasured}
    return measured | dict.fromkeys(sorted(unmeasured))


def by_domain(session: Session, send_id: int) -> dict[str, Performance]:
    """Email domain → the send's performance there, the largest domain first."""
    figures = counters.of_parts(session, send_id, "domain")
    return _domains(figures, tracked_of(send_status.find(session, send_id)))


def largest_domains(session: Session, send_id: int, *, limit: int) -> dict[str, Performance]:
    """``by_domain`` for the largest domains only, because there may be tens of thousands."""
    figures = counters.of_parts(session, send_id, "domain", largest=(FINAL_EVENTS, limit))
    return _domains(figures, tracked_of(send_status.find(session, send_id)))


def most_clicked(session: Session, send_id: int, *, limit: int) -> dict[str, dict[str, int]]:
    """``by_link`` for the most clicked links only."""
    return _links(
        counters.of_parts(session, send_id, "link", largest=(("clicked", "click"), limit))
    )


def by_link(session: Session, send_id: int) -> dict[str, dict[str, int]]:
    """Link → its counters, the most clicked first."""
    return _links(counters.of_parts(session, send_id, "link"))


def _domains(by_name: Mapping[str, Mapping[str, int]], tracked: Tracked) -> dict[str, Performance]:
    domains = {
        domain: Performance(sum(figures.get(one, 0) for one in FINAL_EVENTS), figures, tracked)
        for domain, figures in by_name.items()
    }
    return dict(sorted(domains.items(), key=lambda item: (-item[1].sent, item[0])))


def _links(by_link: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return dict(sorted(by_link.items(), key=lambda item: (-item[1].get("clicked", 0), item[0])))


def _unmeasured(tracked: Tracked) -> frozenset[str]:
    return (frozenset() if tracked.opens else _OF_OPENS) | (
        frozenset() if tracked.clicks else _OF_CLICKS
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
