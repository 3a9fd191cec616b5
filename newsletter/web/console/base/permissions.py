"""Who may open what: each route of the console says it by one of these, and a test reads them all.

``Depends(role(Role.EDITOR))`` gives the handler the visitor, who has at least that role.
``anybody`` and ``halfway`` are for the pages on the way in. Each of them also refuses
posts that no form of ours made, before the handler sees anything.
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


class SignInNeeded(Exception):  # noqa: N818 (no error: the way in)
    """Nobody is signed in, or only half; ``path`` is where they get on."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class StaleFormError(HTTPException):
    """A form of ours whose token is of another session: it was open while somebody signed in."""

    def __init__(self) -> None:
        super().__init__(403, "This form is too old. Open the page again and send it anew.")


@dataclass(frozen=True, slots=True)
class Access:
    """A route's rule. Called by FastAPI with each request, before the handler."""

    #: The least role; None for pages on the way in.
    least: Role | None
    #: The stages of a session with which the page may be opened; empty for anybody.
    stages: frozenset[SignInStage] = frozenset({SignInStage.FULL})

    def __call__(
        self, request: Request, parts: Parts, csrf: Annotated[str, Form()] = ""
    ) -> Visitor | None:
        """The visitor; None only where nobody has to be signed in."""
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
    """The rule of a post too long to be read before its sender is known.

    Its handler reads the body and calls ``refuse_forgeries`` as soon as the token has come.
    """

    def __call__(self, request: Request, parts: Parts) -> Visitor | None:  # type: ignore[override]
        """The visitor."""
        return self._admitted(request, parts)


#: Where each stage gets on.
STEPS = {
    SignInStage.CODE: "/console/sign-in/code",
    SignInStage.ENROL: "/console/account/factor",
    SignInStage.FULL: session_cookie.HOME,
}

anybody = Access(None, frozenset())


def role(least: Role) -> Access:
    """For people who are signed in with at least this role."""
    return Access(least)


def halfway(*stages: SignInStage) -> Access:
    """For people who have come this far."""
    return Access(None, frozenset(stages))


def visitor_of(request: Request, parts: Container) -> Visitor | None:
    """Whose browser this is, if their session goes on."""
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
    """HTTPException unless one of our own forms was posted."""
    base_url = parts.settings.site.base_url
    token = session_cookie.token_in(request, base_url)
    if not session_cookie.comes_from_here(request, base_url):
        raise HTTPException(403, "This form was sent from another site.")
    if not session_cookie.is_genuine(request, parts.form_keys, token, csrf):
        raise StaleFormError
