"""Who opened, clicked, did not open or bounced in a send; this list and its figures as CSV."""

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from newsletter.db.engine import reading
from newsletter.numbers import whole_number
from newsletter.tracking.stats import counters, csv_tables, recipient_actions
from newsletter.tracking.stats import rates as send_rates
from newsletter.tracking.stats.rates import Performance
from newsletter.tracking.stats.recipient_actions import ActiveRecipient, RecipientAction
from newsletter.web.console.base.layout import go, page
from newsletter.web.console.sends.views import HOME, Viewer, find
from newsletter.web.dependencies import Parts

router = APIRouter()
_ONE = f"{HOME}/{{send_id:int}}"
_A_PAGE, _LINKS = 100, 100

_Action = Annotated[str, Query(alias="list", max_length=20)]
_Link = Annotated[str, Query(max_length=500)]


@router.api_route(f"{_ONE}/activity", methods=["GET", "HEAD"])
def show(
    send_id: int,
    request: Request,
    parts: Parts,
    _visitor: Viewer,
    *,
    chosen: _Action = "",
    link: _Link = "",
    after: Annotated[str, Query(max_length=18)] = "",
) -> Response:
    """A page of one of the lists."""
    action, link = _asked(chosen, link)
    people: list[ActiveRecipient] = []
    with reading(parts.database) as session:
        send, issue = find(session, send_id)
        why_not = recipient_actions.unavailable(session, send, action)
        links = {}
        if why_not is None:
            start = whole_number(after) or 0
            people = list(
                recipient_actions.page(
                    session, send, action, link=link, after=start, limit=_A_PAGE + 1
                )
            )
            if action is RecipientAction.CLICKED:
                links = send_rates.most_clicked(session, send_id, limit=_LINKS)
    return page(
        request,
        "send_activity.html",
        send=send,
        issue=issue,
        action=action,
        actions=list(RecipientAction),
        link=link,
        links=links,
        people=people[:_A_PAGE],
        why_not=why_not,
        first=not after,
        more=people[_A_PAGE - 1].id if len(people) > _A_PAGE else None,
        query=_query(action, link),
    )


@router.api_route(f"{_ONE}/activity.csv", methods=["GET", "HEAD"])
def download(
    send_id: int, parts: Parts, _visitor: Viewer, chosen: _Action = "", link: _Link = ""
) -> Response:
    """One of the lists, with all its recipients. Leads to its page if there is no such list."""
    action, link = _asked(chosen, link)
    with reading(parts.database) as session:
        send, _ = find(session, send_id)
        if recipient_actions.unavailable(session, send, action) is not None:
            return go(f"{HOME}/{send_id}/activity?{_query(action, link)}")
        session.expunge(send)
    everyone = recipient_actions.everyone(parts.database, send, action, link=link)
    return _csv(csv_tables.recipients(everyone), f"send-{send_id}-{action}.csv")


@router.api_route(f"{_ONE}/domains.csv", methods=["GET", "HEAD"])
def domains(send_id: int, parts: Parts, _visitor: Viewer) -> Response:
    """The figures of a send by mail domain."""
    with reading(parts.database) as session:
        find(session, send_id)
        found = send_rates.by_domain(session, send_id)
    return _csv(csv_tables.domains(found), f"send-{send_id}-domains.csv")


@router.api_route(f"{_ONE}/links.csv", methods=["GET", "HEAD"])
def links(send_id: int, parts: Parts, _visitor: Viewer) -> Response:
    """The clicks of a send by link. Leads to the page of clicks if they were not measured."""
    with reading(parts.database) as session:
        send, _ = find(session, send_id)
        if not send.track_clicks:
            return go(f"{HOME}/{send_id}/activity?{_query(RecipientAction.CLICKED, '')}")
        found = send_rates.by_link(session, send_id)
    return _csv(csv_tables.links(found), f"send-{send_id}-links.csv")


@router.api_route(f"{_ONE}/days.csv", methods=["GET", "HEAD"])
def days(send_id: int, parts: Parts, _visitor: Viewer) -> Response:
    """The events of a send by day."""
    with reading(parts.database) as session:
        send, _ = find(session, send_id)
        tracked = send_rates.tracked_of(send)
        found = {
            day: Performance(0, figures, tracked)
            for day, figures in counters.of_parts(session, send_id, "day").items()
        }
    return _csv(csv_tables.days(found), f"send-{send_id}-days.csv")


def _asked(chosen: str, link: str) -> tuple[RecipientAction, str]:
    """The list and the link that a request asks for; those who opened by default."""
    action = RecipientAction(chosen) if chosen in set(RecipientAction) else RecipientAction.OPENED
    return action, link.replace("\0", "") if action is RecipientAction.CLICKED else ""


def _query(action: RecipientAction, link: str) -> str:
    return urlencode({"list": str(action)} | ({"link": link} if link else {}))


def _csv(lines: Iterator[str], name: str) -> Response:
    return StreamingResponse(
        lines,
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        },
    )
