"""How a send did: its kept figures and the rates made of them, as docs/metrics.md defines them.

Nothing is counted here; it is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from newsletter.db.orm import Session
from newsletter.issues.parsing.tracking_flags import EVERYTHING, Tracked
from newsletter.provider.events import EventKind
from newsletter.sending.models import Send
from newsletter.sending.queries import send_status
from newsletter.tracking.stats import counters

#: How a mail may end. Of a domain's mails these are known, and no others.
_ENDS = (EventKind.DELIVERED, EventKind.BOUNCE, EventKind.BLOCKED, EventKind.DROPPED)
#: Rates and figures that nobody knows where opens, or clicks, are not measured.
_OF_OPENS = frozenset({"opened", "opens", "open", "machine_open", "clicked_of_openers"})
_FIGURES = frozenset({"opened", "open", "machine_open", "clicked", "click", "machine_click"})
_OF_CLICKS = frozenset({"clicked", "clicks", "click", "machine_click", "clicked_of_openers"})


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares from 0 to 1; None where there is nothing to divide by, or it is not measured."""

    #: Of the mails handed over (of a domain: of those whose end is known).
    delivered: float | None
    bounced: float | None
    blocked: float | None
    #: Of the mails delivered. People, each once; machines left out.
    opened: float | None
    clicked: float | None
    complained: float | None
    unsubscribed: float | None
    #: Of the people who opened or clicked.
    clicked_of_openers: float | None
    #: The same with every repeat: opens and clicks for each mail delivered.
    opens: float | None
    clicks: float | None


@dataclass(frozen=True, slots=True)
class Performance:
    """A send, or the part of it that went to one domain."""

    sent: int
    figures: Mapping[str, int]
    tracked: Tracked = EVERYTHING

    def measures(self, name: str) -> bool:
        """Whether a rate or a figure of this name is measured in this send."""
        return name not in _unmeasured(self.tracked)

    @property
    def rates(self) -> Rates:
        """What is usually compared."""
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
    """How a send did; SendError when there is none of this number."""
    return of_sends(session, [send_status.find(session, send_id)])[send_id]


def of_sends(session: Session, sends: Sequence[Send]) -> dict[int, Performance]:
    """Send → how it did; the same few queries for one and for a hundred."""
    figures = counters.of_sends(session, [send.id for send in sends])
    of = {send.id: tracked_of(send) for send in sends}
    return {
        send_id: Performance(people, figures.get(send_id, {}), of[send_id])
        for send_id, people in send_status.accepted_count(session, sends).items()
    }


def tracked_of(send: Send) -> Tracked:
    """What is measured of a send."""
    return Tracked(clicks=send.track_clicks, opens=send.track_opens)


def known(figures: Mapping[str, int], tracked: Tracked) -> dict[str, int | None]:
    """The figures as they are told: None, not nothing, for what is not measured."""
    unmeasured = _unmeasured(tracked) & _FIGURES
    told: dict[str, int | None] = {k: n for k, n in figures.items() if k not in unmeasured}
    return told | dict.fromkeys(sorted(unmeasured))


def by_domain(session: Session, send_id: int) -> dict[str, Performance]:
    """Mail domain → how the send did there, the largest first."""
    found = counters.of_parts(session, send_id, "domain")
    return _domains(found, tracked_of(send_status.find(session, send_id)))


def largest_domains(session: Session, send_id: int, *, limit: int) -> dict[str, Performance]:
    """``by_domain`` of the largest ones alone: there may be tens of thousands."""
    found = counters.of_parts(session, send_id, "domain", largest=(_ENDS, limit))
    return _domains(found, tracked_of(send_status.find(session, send_id)))


def most_clicked(session: Session, send_id: int, *, limit: int) -> dict[str, dict[str, int]]:
    """``by_link`` of the most clicked ones alone."""
    found = counters.of_parts(session, send_id, "link", largest=(("clicked", "click"), limit))
    return _links(found)


def by_link(session: Session, send_id: int) -> dict[str, dict[str, int]]:
    """Link → its figures, the most clicked first."""
    return _links(counters.of_parts(session, send_id, "link"))


def _domains(found: Mapping[str, Mapping[str, int]], tracked: Tracked) -> dict[str, Performance]:
    done = {
        domain: Performance(sum(figures.get(end, 0) for end in _ENDS), figures, tracked)
        for domain, figures in found.items()
    }
    return dict(sorted(done.items(), key=lambda item: (-item[1].sent, item[0])))


def _links(found: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return dict(sorted(found.items(), key=lambda item: (-item[1].get("clicked", 0), item[0])))


def _unmeasured(tracked: Tracked) -> frozenset[str]:
    return (frozenset() if tracked.opens else _OF_OPENS) | (
        frozenset() if tracked.clicks else _OF_CLICKS
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
