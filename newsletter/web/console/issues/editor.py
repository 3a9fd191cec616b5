"""Writing an issue: the whole file in one field, with what becomes of it beside it.

A post that cannot be done gives the text back; nothing that somebody typed ends here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, Query, Request, Response, UploadFile

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import IssueError, UserError
from newsletter.issues import store
from newsletter.issues.diff import DiffLine
from newsletter.issues.digest_import import import_digest
from newsletter.issues.models import Revision
from newsletter.issues.parsing.issue_file import Draft, parse_issue
from newsletter.issues.parsing.text import MOST_BYTES, too_large
from newsletter.issues.starters import STARTERS, starter
from newsletter.issues.store import StaleRevisionError
from newsletter.numbers import whole_number
from newsletter.rendering.preview import SAMPLE_READER, Scheme, preview
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import role
from newsletter.web.console.issues import email_frame
from newsletter.web.console.issues.content_checks import DraftCheck, look
from newsletter.web.console.issues.views import HOME, differences, find, number_in, revision_at
from newsletter.web.dependencies import Parts

router = APIRouter()
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]
_Text = Annotated[str, Form()]
_Word = Annotated[str, Form(max_length=20)]

#: A text of MOST_BYTES, of which a form makes up to three times as many, and something over: who
#: brings a text that is a little too long is told so, with the text.
_MOST_POSTED: Final = 1024 * 1024
#: What errors call a text without a file: no slug can be made of it.
_NAMELESS = "—"


@dataclass(frozen=True, slots=True)
class Sheet:
    """What lies in the editor: a text, of which issue, and which revision it was made from."""

    text: str
    #: Empty for an issue that is not stored yet.
    slug: str = ""
    base: int = 0
    stored: str | None = None


@router.api_route(f"{HOME}/_new", methods=["GET", "HEAD"])
def begin(request: Request, _visitor: _Editor) -> Response:
    """How to begin: with a letter, with a digest, or with a text that there is already."""
    return page(request, "issue_new.html", starters=list(STARTERS), pasted="")


@router.post(f"{HOME}/_new", max_body_size=_MOST_POSTED)
def take_digest(
    request: Request,
    parts: Parts,
    _visitor: _Editor,
    *,
    pasted: _Text = "",
    upload: UploadFile | None = None,
) -> Response:
    """Make an issue file of a plain-text digest, and open it; nothing is stored yet."""
    try:
        given = _given(pasted, upload)
        return _open(request, Sheet(parts.text_workers(import_digest, given, name="the digest")))
    except UserError as error:
        problem = error
    shown = pasted if len(pasted) <= MOST_BYTES else ""
    return page(
        request,
        "issue_new.html",
        status=400,
        starters=list(STARTERS),
        pasted=shown,
        problem=problem,
    )


@router.api_route(f"{HOME}/_edit", methods=["GET", "HEAD"])
def begin_writing(
    request: Request,
    parts: Parts,
    _visitor: _Editor,
    template: Annotated[str, Query(max_length=20)] = "letter",
) -> Response:
    """The editor with the text that a new issue begins with."""
    today = datetime.now(ZoneInfo(parts.settings.site.timezone)).date()
    return _open(request, Sheet(starter(template, today)))


@router.post(f"{HOME}/_edit", max_body_size=_MOST_POSTED)
def store_new(
    request: Request, parts: Parts, visitor: _Editor, text: _Text = "", do: _Word = ""
) -> Response:
    """Store the first revision of an issue."""
    return _store(request, parts, visitor, Sheet(text), do)


@router.api_route(f"{HOME}/{{slug}}/edit", methods=["GET", "HEAD"])
def edit(slug: str, request: Request, parts: Parts, _visitor: _Editor, done: str = "") -> Response:
    """The editor with the latest revision."""
    with reading(parts.database) as session:
        issue = find(session, slug)
        latest = revision_at(session, issue, "")
    sheet = Sheet(latest.source, slug, latest.number, stored=latest.source)
    return _open(request, sheet, done=done)


@router.post(f"{HOME}/{{slug}}/edit", max_body_size=_MOST_POSTED)
def store_next(
    slug: str,
    request: Request,
    parts: Parts,
    visitor: _Editor,
    *,
    text: _Text = "",
    base: _Word = "",
    do: _Word = "",
) -> Response:
    """Store the text as the latest revision, unless somebody was faster."""
    with reading(parts.database) as session:
        find(session, slug)
    return _store(request, parts, visitor, Sheet(text, slug, number_in(base)), do)


@router.post(f"{HOME}/_check", max_body_size=_MOST_POSTED)
def check(
    request: Request, parts: Parts, _visitor: _Editor, text: _Text = "", slug: _Text = ""
) -> Response:
    """What is to be said of a text as it is now: a piece of the editor."""
    return page(request, "issue_findings.html", look=look(parts, text, name=_name(slug)))


@router.post(f"{HOME}/_mail", max_body_size=_MOST_POSTED)
def show_mail(
    parts: Parts,
    _visitor: _Editor,
    *,
    text: _Text = "",
    slug: _Text = "",
    scheme: _Word = "",
) -> Response:
    """The mail that a text would become: a document for the editor's frame."""
    looked = look(parts, text, name=_name(slug))
    if looked.rendered is None:
        first = looked.findings[0]
        where = f"DiffLine {first.line}: " if first.line else ""
        return email_frame.said(f"{where}{first.message}. {first.hint}")
    try:
        shown = parts.text_workers(
            preview, looked.rendered, SAMPLE_READER, scheme=scheme_of(scheme)
        )
    except UserError as error:
        return email_frame.said(f"{error.message}. {error.hint or ''}")
    return email_frame.document(shown.html)


def scheme_of(word: str) -> Scheme:
    """Light, unless something else is asked for that there is."""
    return Scheme(word) if word in set(Scheme) else Scheme.LIGHT


def _store(request: Request, parts: Container, visitor: Visitor, sheet: Sheet, do: str) -> Response:
    if do == "check":
        return _open(request, sheet, checked=look(parts, sheet.text, name=_name(sheet.slug)))
    try:
        draft = _draft(parts, sheet)
        with transaction(parts.database) as session:
            by, now = actor(request, visitor), datetime.now(UTC)
            store.save(session, draft, by=by, now=now, base=sheet.base)
    except StaleRevisionError as stale:
        return _conflict(request, parts, sheet, stale, draft.slug)
    except UserError as error:
        return _open(request, sheet, problem=error, status=400)
    return go(f"{HOME}/{draft.slug}/edit?done=stored")


def _conflict(
    request: Request, parts: Container, sheet: Sheet, stale: StaleRevisionError, slug: str
) -> Response:
    """Both texts, and two ways on: put one into the other, or store over it knowingly."""
    if not sheet.slug:
        hint = f"Choose another slug, or open the issue that is called {slug}."
        taken = IssueError("there is an issue of this slug already", place="slug", hint=hint)
        return _open(request, sheet, problem=taken, status=409)
    with reading(parts.database) as session:
        issue = find(session, slug)
        theirs = revision_at(session, issue, str(stale.latest) if stale.latest else "")
    sheet = Sheet(stale.text, slug, theirs.number, stored=theirs.source)
    lines: Sequence[DiffLine] | UserError
    try:
        lines = differences(parts, theirs.source, stale.text)
    except UserError as error:
        lines = error
    return _open(request, sheet, theirs=theirs, lines=lines, status=409)


def _open(
    request: Request,
    sheet: Sheet,
    *,
    status: int = 200,
    done: str = "",
    problem: UserError | None = None,
    checked: DraftCheck | None = None,
    theirs: Revision | None = None,
    lines: Sequence[DiffLine] | UserError = (),
) -> Response:
    """The editor; ``theirs`` is what somebody else stored meanwhile.

    ``lines`` is what differs, or why that cannot be shown.
    """
    return page(
        request,
        "issue_edit.html",
        status=status,
        sheet=sheet,
        action=f"{HOME}/{sheet.slug}/edit" if sheet.slug else f"{HOME}/_edit",
        done=done,
        # Whatever was posted and is shown again is not stored, or it would be shown by a GET.
        unstored=request.method == "POST",
        problem=problem,
        line=_line(problem) if problem else None,
        look=checked,
        theirs=theirs,
        lines=() if isinstance(lines, UserError) else lines,
        uncompared=lines if isinstance(lines, UserError) else None,
    )


def _given(pasted: str, upload: UploadFile | None) -> str:
    """What was uploaded, or else pasted."""
    if upload is None or not upload.filename:
        return pasted
    if (size := upload.size or 0) > MOST_BYTES:
        raise too_large(size, "the file")
    try:
        return upload.file.read().decode() or pasted
    except UnicodeDecodeError:
        hint = "Save it as UTF-8."
        raise IssueError("this is not UTF-8", place="the file", hint=hint) from None


def _draft(parts: Container, sheet: Sheet) -> Draft:
    draft = parts.text_workers(parse_issue, sheet.text, name=_name(sheet.slug))
    if sheet.slug and draft.slug != sheet.slug:
        raise IssueError(
            f"this issue is called {sheet.slug}, and its slug stays",
            place=f"slug: {draft.slug}",
            hint="To write another issue, begin a new one with this text.",
        )
    return draft


def _line(problem: UserError) -> int | None:
    """The line that an error speaks of."""
    _, _, line = (problem.place or "").rpartition(":")
    return whole_number(line)


def _name(slug: str) -> str:
    """What a text without a slug of its own is called by: that of its issue."""
    return f"{slug}.md" if slug else _NAMELESS
