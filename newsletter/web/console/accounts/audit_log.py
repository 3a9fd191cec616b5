"""The audit log, for owners; latest entries first."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from newsletter.accounts import audit
from newsletter.accounts.models import Role
from newsletter.db.engine import reading
from newsletter.numbers import whole_number
from newsletter.web.console.base.layout import page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts

router = APIRouter(dependencies=[Depends(role(Role.OWNER))])
_A_PAGE = 50


@router.api_route("/console/log", methods=["GET", "HEAD"])
def show(
    request: Request, parts: Parts, before: Annotated[str, Query(max_length=18)] = ""
) -> Response:
    """One page of entries."""
    # Without a valid number, begin with the latest entry.
    start = whole_number(before)
    with reading(parts.database) as session:
        entries = audit.entries(session, before=start, limit=_A_PAGE + 1)
    more = entries[_A_PAGE - 1].id if len(entries) > _A_PAGE else None
    return page(request, "log.html", log=entries[:_A_PAGE], more=more, first=start is None)
