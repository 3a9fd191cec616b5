"""Deliverability: rates of sends over time, and one send by mail domain and by link.

Everything is read from stored counters (newsletter.tracking.stats.counters), which
docs/reference/metrics.md defines.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.db.engine import reading
from newsletter.numbers import whole_number
from newsletter.sending.queries import send_list
from newsletter.tracking.stats import rates as send_rates
from newsletter.web.console.base.layout import page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.sends.views import find
from newsletter.web.dependencies import Parts

router = APIRouter()

PERIODS = {"30": "30 days", "90": "90 days", "365": "A year"}
_SENDS, _DOMAINS, _LINKS = 100, 25, 25


@router.api_route("/console/deliverability", methods=["GET", "HEAD"])
def show(
    request: Request,
    parts: Parts,
    _visitor: Annotated[Visitor, Depends(role(Role.VIEWER))],
    days: Annotated[str, Query(max_length=5)] = "90",
    number: Annotated[str, Query(alias="send", max_length=18)] = "",
) -> Response:
    """The sends of a period, and one of them: the latest unless another is asked for."""
    days = days if days in PERIODS else "90"
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        since = now - timedelta(days=int(days))
        entries = send_list.started_since(session, since, limit=_SENDS)
        done = send_rates.of_sends(session, [entry.send for entry in entries])
        chosen = whole_number(number)
        if chosen is None and entries:
            # A send that has just begun has nothing to show yet.
            heard = (entry.send.id for entry in entries if done[entry.send.id].figures)
            chosen = next(heard, entries[0].send.id)
        one = find(session, chosen) if chosen is not None else None
        domains = send_rates.largest_domains(session, chosen, limit=_DOMAINS) if chosen else {}
        links = send_rates.most_clicked(session, chosen, limit=_LINKS) if chosen else {}
    return page(
        request,
        "deliverability.html",
        periods=PERIODS,
        days=days,
        sends=entries,
        done=done,
        one=one,
        domains=domains,
        most=max((one.sent for one in domains.values()), default=0),
        links=links,
        most_clicks=max((figures.get("clicked", 0) for figures in links.values()), default=0),
        limits={"sends": _SENDS, "domains": _DOMAINS, "links": _LINKS},
    )
