"""The editor of an issue: the whole file in one field, with a preview beside it.

If a post fails, the answer contains the text, so that no typed text is lost.
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
from newsletter.web.console.issues.content_checks import DraftCheck, check_draft
from newsletter.web.console.issues.views import HOME, differences, find, number_in, revision_at
from newsletter.web.dependencies import Parts

router = APIRouter()
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]
_Text = Annotated[str, Form()]
_Word = Annotated[str, Form(max_length=20)]

#: Bytes of a post: a text of MOST_BYTES, three times as long in form encoding, and more, so that a
#: text that is slightly too long is still received and shown again with the error.
_MOST_POSTED: Final = 1024 * 1024
#: The file name of a text without a slug in error messages; it cannot be a slug.
_NAMELESS = "—"


@dataclass(frozen=True, slots=True)
class EditorState:
    """The content of the editor: a text, its issue, and the revision on which it is based."""

    text: str
    #: Empty for an issue that is not saved yet.
    slug: str = ""
    base: int = 0
    stored: str | None = None


@router.api_route(f"{HOME}/_new", methods=["GET", "HEAD"])
def begin(request: Request, _visitor: _Editor) -> Response:
    """The choice of a template, or of a digest to import."""
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
    """Convert a plain-text digest to an issue file and open it, without saving."""
    try:
        given = _uploaded_text(pasted, upload)
        return _open(
            request, EditorState(parts.text_workers(import_digest, given, name="the digest"))
        )
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
    """The editor with the text of a template."""
    today = datetime.now(ZoneInfo(parts.settings.site.timezone)).date()
    return _open(request, EditorState(starter(template, today)))


@router.post(f"{HOME}/_edit", max_body_size=_MOST_POSTED)
def store_new(
    request: Request, parts: Parts, visitor: _Editor, text: _Text = "", do: _Word = ""
) -> Response:
    """Save the first revision of an issue."""
    return _store(request, parts, visitor, EditorState(text), do)


@router.api_route(f"{HOME}/{{slug}}/edit", methods=["GET", "HEAD"])
def edit(slug: str, request: Request, parts: Parts, _visitor: _Editor, done: str = "") -> Response:
    """The editor with the latest revision."""
    with reading(parts.database) as session:
        issue = find(session, slug)
        latest = revision_at(session, issue, "")
    state = EditorState(latest.source, slug, latest.number, stored=latest.source)
    return _open(request, state, done=done)


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
    """Save the text as the latest revision, unless someone has saved another one meanwhile."""
    with reading(parts.database) as session:
        find(session, slug)
    return _store(request, parts, visitor, EditorState(text, slug, number_in(base)), do)


@router.post(f"{HOME}/_check", max_body_size=_MOST_POSTED)
def check(
    request: Request, parts: Parts, _visitor: _Editor, text: _Text = "", slug: _Text = ""
) -> Response:
    """The findings in the current text, as a part of the editor page."""
    return page(request, "issue_findings.html", look=check_draft(parts, text, name=_name(slug)))


@router.post(f"{HOME}/_mail", max_body_size=_MOST_POSTED)
def show_email(
    parts: Parts,
    _visitor: _Editor,
    *,
    text: _Text = "",
    slug: _Text = "",
    scheme: _Word = "",
) -> Response:
    """The email made of the current text, as a document for the editor's frame."""
    checked = check_draft(parts, text, name=_name(slug))
    if checked.rendered is None:
        first = checked.findings[0]
        where = f"Line {first.line}: " if first.line else ""
        return email_frame.message(f"{where}{first.message}. {first.hint}")
    try:
        shown = parts.text_workers(
            preview, checked.rendered, SAMPLE_READER, scheme=scheme_of(scheme)
        )
    except UserError as error:
        return email_frame.message(f"{error.message}. {error.hint or ''}")
    return email_frame.document(shown.html)


def scheme_of(word: str) -> Scheme:
    """The color scheme of this name; light for an unknown one."""
    return Scheme(word) if word in set(Scheme) else Scheme.LIGHT


def _store(
    request: Request, parts: Container, visitor: Visitor, state: EditorState, do: str
) -> Response:
    if do == "check":
        return _open(request, state, checked=check_draft(parts, state.text, name=_name(state.slug)))
    try:
        draft = _draft(parts, state)
        with transaction(parts.database) as session:
            by, now = actor(request, visitor), datetime.now(UTC)
            store.save(session, draft, by=by, now=now, base=state.base)
    except StaleRevisionError as stale:
        return _conflict(request, parts, state, stale, draft.slug)
    except UserError as error:
        return _open(request, state, problem=error, status=400)
    return go(f"{HOME}/{draft.slug}/edit?done=stored")


def _conflict(
    request: Request, parts: Container, state: EditorState, stale: StaleRevisionError, slug: str
) -> Response:
    """Show both texts: the user can merge them, or save their own over the other."""
    if not state.slug:
        hint = f"Choose another slug, or open the issue {slug}."
        taken = IssueError("another issue has this slug", place="slug", hint=hint)
        return _open(request, state, problem=taken, status=409)
    with reading(parts.database) as session:
        issue = find(session, slug)
        theirs = revision_at(session, issue, str(stale.latest) if stale.latest else "")
    state = EditorState(stale.text, slug, theirs.number, stored=theirs.source)
    lines: Sequence[DiffLine] | UserError
    try:
        lines = differences(parts, theirs.source, stale.text)
    except UserError as error:
        lines = error
    return _open(request, state, theirs=theirs, lines=lines, status=409)


def _open(
    request: Request,
    state: EditorState,
    *,
    status: int = 200,
    done: str = "",
    problem: UserError | None = None,
    checked: DraftCheck | None = None,
    theirs: Revision | None = None,
    lines: Sequence[DiffLine] | UserError = (),
) -> Response:
    """The editor; ``theirs`` is the revision that someone else saved meanwhile.

    ``lines`` are the differences, or the error if they cannot be computed.
    """
    return page(
        request,
        "issue_edit.html",
        status=status,
        state=state,
        action=f"{HOME}/{state.slug}/edit" if state.slug else f"{HOME}/_edit",
        done=done,
        # A text shown in answer to a POST was not saved: after saving, the answer is a redirect.
        unstored=request.method == "POST",
        problem=problem,
        line=_line(problem) if problem else None,
        look=checked,
        theirs=theirs,
        lines=() if isinstance(lines, UserError) else lines,
        uncompared=lines if isinstance(lines, UserError) else None,
    )


def _uploaded_text(pasted: str, upload: UploadFile | None) -> str:
    """The uploaded text, or else the pasted one."""
    if upload is None or not upload.filename:
        return pasted
    if (size := upload.size or 0) > MOST_BYTES:
        raise too_large(size, "the file")
    try:
        return upload.file.read().decode() or pasted
    except UnicodeDecodeError:
        hint = "Save it as UTF-8."
        raise IssueError("this is not UTF-8", place="the file", hint=hint) from None


def _draft(parts: Container, state: EditorState) -> Draft:
    draft = parts.text_workers(parse_issue, state.text, name=_name(state.slug))
    if state.slug and draft.slug != state.slug:
        raise IssueError(
            f"the slug of this issue is {state.slug} and cannot be changed",
            place=f"slug: {draft.slug}",
            hint="For another issue, create a new one with this text.",
        )
    return draft


def _line(problem: UserError) -> int | None:
    """The line number in the place of an error."""
    _, _, line = (problem.place or "").rpartition(":")
    return whole_number(line)


def _name(slug: str) -> str:
    """The file name in error messages: the slug of the issue."""
    return f"{slug}.md" if slug else _NAMELESS
