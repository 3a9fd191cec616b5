"""The rules of the circuit breaker, and what they and others would have done to past sends."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.errors import SettingsError
from newsletter.tracking.breaker_backtest import backtest, beside_each_other, percent
from newsletter.tracking.breaker_rules import parse_rules
from newsletter.web.console.base.layout import page
from newsletter.web.console.base.permissions import role
from newsletter.web.dependencies import Parts

router = APIRouter()
HOME = "/console/deliverability/circuit-breaker"
_DAYS = 90
#: Characters of a text of rules.
_LONGEST = 50_000
_NOW, _NEW = "now", "new"

_Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]


@router.api_route(HOME, methods=["GET", "HEAD"])
def show(request: Request, parts: Parts, _visitor: _Viewer) -> Response:
    """The rules, and which sends of the last 90 days they would have paused."""
    return _shown(request, parts, None)


@router.post(HOME)
def preview(
    request: Request,
    parts: Parts,
    _visitor: Annotated[Visitor, Depends(role(Role.EDITOR))],
    rules: Annotated[str, Form()] = "",
) -> Response:
    """The same for the typed rules beside those of now. Saves nothing, so the status is 200 even
    for wrong rules."""
    return _shown(request, parts, rules.replace("\r\n", "\n")[:_LONGEST])


def _shown(request: Request, parts: Container, typed: str | None) -> Response:
    versions, problem = {_NOW: parts.breaker_rules}, None
    if typed is not None:
        try:
            versions[_NEW] = parse_rules(typed, name="the typed rules")
        except SettingsError as error:
            problem = error
    since = datetime.now(UTC) - timedelta(days=_DAYS)
    with reading(parts.database) as session:
        results = {name: backtest(session, rules, since=since) for name, rules in versions.items()}
    return page(
        request,
        "circuit_breaker.html",
        days=_DAYS,
        results=results,
        rows=beside_each_other(results),
        percent=percent,
        problem=problem,
        text=parts.breaker_file.read_text("utf-8") if typed is None else typed,
    )
