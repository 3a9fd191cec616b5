"""The preview of an issue as a subscriber gets it, its check results, and test emails.

The email itself is in a frame with its own URL (email_frame.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.errors import UserError
from newsletter.issues.models import Issue, Revision
from newsletter.rendering.preview import SAMPLE_READER, UNKNOWN_READER, Preview, preview
from newsletter.rendering.rendered import Rendered
from newsletter.sending.ledger.recipients import values_of
from newsletter.sending.operations import test_email
from newsletter.web.console.base.layout import actor, page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.issues import email_frame
from newsletter.web.console.issues.content_checks import DraftCheck, check_draft
from newsletter.web.console.issues.editor import scheme_of
from newsletter.web.console.issues.views import HOME, Viewer, find, revision_at
from newsletter.web.dependencies import Parts
from subscribers.self_service import erasure

router = APIRouter()
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]
_Word = Annotated[str, Query(max_length=20)]

#: Sample readers: one with a name, and one without any data.
_SAMPLE_READERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "": SAMPLE_READER,
    "stranger": UNKNOWN_READER,
}


@dataclass(frozen=True, slots=True)
class View:
    """The options of the preview, as words in the query of the URL."""

    #: A revision's number; empty for the latest.
    revision: _Word = ""
    #: ``""``, ``stranger``, or a subscriber's address.
    person: Annotated[str, Query(max_length=320)] = ""
    part: _Word = "mail"
    width: _Word = "desktop"
    scheme: _Word = "light"
    images: _Word = "on"

    @property
    def query(self) -> str:
        """The query of the frame's URL."""
        kept = ("revision", "person", "scheme", "images")
        return urlencode({name: getattr(self, name) for name in kept})

    @property
    def all(self) -> str:
        """The query of a URL that shows the same view."""
        return urlencode(asdict(self))


_View = Annotated[View, Depends()]


@dataclass(frozen=True, slots=True)
class Shown:
    """A checked revision, with its email if it could be rendered."""

    issue: Issue
    revision: Revision
    look: DraftCheck
    mail: Preview | None
    #: Why the email is not shown.
    problem: UserError | None
    #: Whether links were requested and DNS was looked up.
    asked: bool = False


@router.api_route(f"{HOME}/{{slug}}/preview", methods=["GET", "HEAD"])
def show(slug: str, request: Request, parts: Parts, visitor: Viewer, view: _View) -> Response:
    """The page around the email."""
    return _page(request, visitor, _shown(parts, slug, view), view)


@router.api_route(f"{HOME}/{{slug}}/mail", methods=["GET", "HEAD"])
def mail(slug: str, parts: Parts, _visitor: Viewer, view: _View) -> Response:
    """The email itself, for the frame."""
    shown = _shown(parts, slug, view)
    if shown.mail is None:
        return email_frame.message("There is no email to show.", status=400)
    return email_frame.document(shown.mail.html, images=view.images != "off")


@router.post(f"{HOME}/{{slug}}/ask")
def check_links(
    slug: str, request: Request, parts: Parts, visitor: _Editor, view: _View
) -> Response:
    """The same page, after requesting every link and looking up the sender's domain."""
    return _page(request, visitor, _shown(parts, slug, view, asked=True), view)


@router.post(f"{HOME}/{{slug}}/preview")
def send_test(
    slug: str,
    request: Request,
    parts: Parts,
    visitor: _Editor,
    view: _View,
    *,
    to: Annotated[str, Form(max_length=4000)] = "",
) -> Response:
    """Send the shown email to a few addresses, marked as a test."""
    shown = _shown(parts, slug, view)
    try:
        rendered, person = _rendered(shown), _person(parts, view.person)
        emails = test_email.send(
            parts.database,
            parts.gateway,
            rendered,
            person,
            re.split(r"[\s,;]+", to.strip()) if to.strip() else [],
            by=actor(request, visitor),
            now=datetime.now(UTC),
            hash_of=parts.hash_of,
            secret=parts.address_key,
            slug=slug,
        )
    except UserError as error:
        return _page(request, visitor, shown, view, refused=error, to=to)
    return _page(request, visitor, shown, view, sent=emails)


def _rendered(shown: Shown) -> Rendered:
    """The rendered email; UserError if the text cannot be parsed, as with some old revisions."""
    if shown.look.rendered is None:
        first = shown.look.findings[0]
        raise UserError(first.message, hint=first.hint)
    return shown.look.rendered


def _shown(parts: Container, slug: str, view: View, *, asked: bool = False) -> Shown:
    with reading(parts.database) as session:
        issue = find(session, slug)
        revision = revision_at(session, issue, view.revision)
    checked = check_draft(parts, revision.source, name=f"{slug}.md", outside=asked)
    if checked.rendered is None:
        return Shown(issue, revision, checked, None, None)
    images, scheme = view.images != "off", scheme_of(view.scheme)
    try:
        person = _person(parts, view.person)
        made = parts.text_workers(preview, checked.rendered, person, images=images, scheme=scheme)
    except UserError as error:
        return Shown(issue, revision, checked, None, error, asked)
    return Shown(issue, revision, checked, made, None, asked)


def _person(parts: Container, word: str) -> Mapping[str, Any]:
    """The values for merge fields; UserError if no subscriber has this address."""
    word = word.strip()
    if word in _SAMPLE_READERS:
        return _SAMPLE_READERS[word]
    with reading(parts.database) as session:
        number = erasure.find(session, word, address_key=parts.address_key)
        return values_of(session, number)


def _page(
    request: Request,
    visitor: Visitor,
    shown: Shown,
    view: View,
    *,
    refused: UserError | None = None,
    to: str = "",
    sent: Sequence[str] = (),
) -> Response:
    slug = shown.issue.slug
    # The number of the shown revision is in the URLs and the form, so that the frame and a test
    # email show the same one, even if someone saves another meanwhile.
    view = replace(view, revision=str(shown.revision.number))
    return page(
        request,
        "issue_preview.html",
        status=400 if refused else 200,
        shown=shown,
        issue=shown.issue,
        view=view,
        frame=f"{HOME}/{slug}/mail?{view.query}",
        may_write=visitor.role.covers(Role.EDITOR),
        most=test_email.MAX_ADDRESSES,
        refused=refused,
        to=to,
        sent=sent,
    )
