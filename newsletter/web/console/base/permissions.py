"""Permissions of the console: each route declares one of these rules, and a test checks them all.

``Depends(role(Role.EDITOR))`` gives the handler the visitor, who has at least that role.
``anybody`` and ``at_stage`` are for the pages used to sign in. Each rule also refuses posts that do
not come from our forms, before the handler runs.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Form, HTTPException, Request

from newsletter.accounts import sessions
from newsletter.accounts.models import Role, SignInStage
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.web.console.base import session_cookie
from newsletter.web.dependencies import Parts

_SAFE = {"GET", "HEAD"}


class SignInNeeded(Exception):  # noqa: N818 (not an error)
    """The visitor is not signed in, or only partly; ``path`` is the page of the next step."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class StaleFormError(HTTPException):
    """A form with the token of an earlier session: it was open while someone signed in."""

    def __init__(self) -> None:
        super().__init__(403, "This form is too old. Reload the page and send the form again.")


@dataclass(frozen=True, slots=True)
class Access:
    """The permission rule of a route. FastAPI calls it before the handler of each request."""

    #: The lowest role; None for pages used to sign in.
    least: Role | None
    #: The stages of a session that may open the page; empty for anybody.
    stages: frozenset[SignInStage] = frozenset({SignInStage.FULL})

    def __call__(
        self, request: Request, parts: Parts, csrf: Annotated[str, Form()] = ""
    ) -> Visitor | None:
        """The visitor; None only on pages without sign-in."""
        if request.method not in _SAFE:
            refuse_forgeries(request, parts, csrf)
        return self._admitted(request, parts)

    def _admitted(self, request: Request, parts: Container) -> Visitor | None:
        visitor = visitor_of(request, parts)
        request.state.visitor = visitor
        if not self.stages:
            return visitor
        if visitor is None:
            raise SignInNeeded("/console/sign-in")
        if visitor.stage not in self.stages:
            raise SignInNeeded(STEPS[visitor.stage])
        if self.least is not None and not visitor.role.covers(self.least):
            raise HTTPException(403, f"Only the role {self.least} or higher can open this page.")
        return visitor


class Streamed(Access):
    """The rule of an upload, whose body must not be read before its sender is known.

    Its handler reads the body and calls ``refuse_forgeries`` as soon as it has the token.
    """

    def __call__(self, request: Request, parts: Parts) -> Visitor | None:  # type: ignore[override]
        """The visitor."""
        return self._admitted(request, parts)


#: The page of the next step after each stage.
STEPS = {
    SignInStage.CODE: "/console/sign-in/code",
    SignInStage.ENROL: "/console/account/factor",
    SignInStage.FULL: session_cookie.HOME,
}

anybody = Access(None, frozenset())


def role(least: Role) -> Access:
    """For users who are signed in with at least this role."""
    return Access(least)


def at_stage(*stages: SignInStage) -> Access:
    """For users whose session is at one of these stages."""
    return Access(None, frozenset(stages))


def visitor_of(request: Request, parts: Container) -> Visitor | None:
    """The user of this browser's session; None without a valid session."""
    token = session_cookie.token_in(request, parts.settings.site.base_url)
    if not token:
        return None
    now = datetime.now(UTC)
    with reading(parts.database) as session:
        visitor = sessions.find(session, token, idle=parts.settings.console.idle_time, now=now)
    if visitor is not None and sessions.is_stale(visitor, now=now):
        with transaction(parts.database) as session:
            sessions.touch(session, visitor.session_id, now=now)
    return visitor


def refuse_forgeries(request: Request, parts: Container, csrf: str) -> None:
    """Raise HTTPException unless the post comes from one of our forms."""
    base_url = parts.settings.site.base_url
    token = session_cookie.token_in(request, base_url)
    if not session_cookie.is_same_origin(request, base_url):
        raise HTTPException(403, "This form was sent from another site.")
    if not session_cookie.is_genuine(request, parts.form_keys, token, csrf):
        raise StaleFormError
