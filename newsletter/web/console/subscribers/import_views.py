"""Imports of lists: upload, results of the dry run, start, progress, rejected rows."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from newsletter.accounts.models import Role
from newsletter.accounts.sessions import Visitor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Row
from newsletter.errors import UserError
from newsletter.imports import import_jobs
from newsletter.imports.models import OVER, JobState
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.base.permissions import Streamed, refuse_forgeries, role
from newsletter.web.console.subscribers.upload import Upload, UploadError
from newsletter.web.dependencies import Parts
from subscribers.consent import topics
from subscribers.list_files import column_mapping
from subscribers.list_files.dates import ORDERS
from subscribers.transfer.import_run import ImportOptions

router = APIRouter()
_Viewer = Annotated[Visitor, Depends(role(Role.VIEWER))]
_Editor = Annotated[Visitor, Depends(role(Role.EDITOR))]
_Uploader = Annotated[Visitor, Depends(Streamed(Role.EDITOR))]

HOME = "/console/subscribers/import"
_ONE = f"{HOME}/{{job_id:int}}"
_MEGABYTE = 1_000_000
#: The choice that keeps the meaning found for a column.
_AS_FOUND = "as-found"
#: Larger than any file, because upload.py enforces the limit imports.max_megabytes.
_MOST_UPLOADED = 2**40


@router.api_route(HOME, methods=["GET", "HEAD"])
def listing(request: Request, parts: Parts, _visitor: _Viewer) -> Response:
    """The form, and the latest imports."""
    return _list(request, parts)


@router.post(HOME, max_body_size=_MOST_UPLOADED)
async def upload(request: Request, parts: Parts, visitor: _Uploader) -> Response:
    """Receive a list. A dry run in the background reads it and changes nothing yet."""
    try:
        job_id = await _received(request, parts, visitor)
    except UserError as error:
        return await run_in_threadpool(_list, request, parts, problem=error)
    return go(f"{HOME}/{job_id}")


@router.api_route(_ONE, methods=["GET", "HEAD"])
def show(job_id: int, request: Request, parts: Parts, _visitor: _Viewer) -> Response:
    """The status of one import."""
    return _show(request, parts, job_id)


@router.api_route(f"{_ONE}/status", methods=["GET", "HEAD"])
def status(job_id: int, request: Request, parts: Parts, _visitor: _Viewer) -> Response:
    """The part of the page that updates itself."""
    return _show(request, parts, job_id, template="import_status.html")


@router.post(f"{_ONE}/start")
def start(
    job_id: int,
    request: Request,
    parts: Parts,
    visitor: _Editor,
    *,
    topic: Annotated[list[str] | None, Form()] = None,
    wording: Annotated[str, Form()] = "",
    confirmed: Annotated[str, Form()] = "",
    known: Annotated[str, Form()] = "update",
) -> Response:
    """Start the import."""
    words = " ".join("".join(c if c.isprintable() else " " for c in wording).split())[:1000]
    options = ImportOptions(
        topics=tuple(topic or ()),
        wording=words,
        confirmed=confirmed == "yes",
        update=known != "keep",
    )
    try:
        _check(options)
        with transaction(parts.database) as session:
            import_jobs.start(session, actor(request, visitor), job_id, options, now=_now())
    except UserError as error:
        typed = {"wording": words, "confirmed": options.confirmed, "keep": not options.update}
        return _show(request, parts, job_id, problem=error, typed=typed, chosen=options.topics)
    return go(f"{HOME}/{job_id}")


@router.post(f"{_ONE}/read-again")
def read_again(
    job_id: int,
    request: Request,
    parts: Parts,
    visitor: _Editor,
    *,
    encoding: Annotated[str, Form()] = "",
    column: Annotated[list[str] | None, Form()] = None,
    meaning: Annotated[list[str] | None, Form()] = None,
    word: Annotated[list[str] | None, Form()] = None,
    state: Annotated[list[str] | None, Form()] = None,
    everybody: Annotated[str, Form()] = "",
    dates: Annotated[str, Form()] = "",
    create_topics: Annotated[str, Form()] = "",
) -> Response:
    """Repeat the dry run with another encoding or other meanings of columns and words."""
    name = "".join(c for c in encoding if c.isascii() and c.isprintable())[:40]
    options = ImportOptions(
        encoding=name or None,
        mapping=_chosen(column, meaning),
        words=_chosen(word, state),
        everybody=everybody if everybody in column_mapping.WORD_MEANINGS else None,
        dates=dates if dates in ORDERS else None,
        create_topics=create_topics == "yes",
    )
    try:
        column_mapping.check_mapping(options.mapping)
        for one, meant in options.words:
            column_mapping.word_to_state(meant, one)
        with transaction(parts.database) as session:
            who = actor(request, visitor)
            import_jobs.check_again(session, who, job_id, options, now=_now())
    except UserError as error:
        return _show(request, parts, job_id, problem=error)
    return go(f"{HOME}/{job_id}")


def _chosen(names: list[str] | None, meanings: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Name → chosen meaning, without those that stay as found."""
    pairs = zip(names or (), meanings or (), strict=False)
    return tuple((name[:300], meant[:100]) for name, meant in pairs if meant != _AS_FOUND)


@router.post(f"{_ONE}/stop")
def stop(job_id: int, request: Request, parts: Parts, visitor: _Editor) -> Response:
    """Stop an import; subscribers imported until then stay."""
    try:
        with transaction(parts.database) as session:
            import_jobs.stop(session, actor(request, visitor), job_id, now=_now())
            job = import_jobs.find(session, job_id)
    except UserError as error:
        return _show(request, parts, job_id, problem=error)
    if job is not None and job.state == JobState.STOPPED:
        parts.uploads.drop(job_id, rejects=False)
    return go(f"{HOME}/{job_id}")


@router.api_route(f"{_ONE}/rejects", methods=["GET", "HEAD"])
def rejects(job_id: int, parts: Parts, _visitor: _Editor) -> Response:
    """The rejected rows with line and reason, escaped so that spreadsheets run no formulas."""
    with reading(parts.database) as session:
        job = import_jobs.find(session, job_id)
    path = parts.uploads.rejects(job_id)
    if job is None or not path.exists():
        raise HTTPException(404)
    return FileResponse(
        path,
        media_type="text/csv; charset=utf-8",
        filename=f"rejects-{job_id}.csv",
        headers={"Cache-Control": "no-store"},
    )


def _check(options: ImportOptions) -> None:
    if options.confirmed and not options.wording:
        raise UserError(
            "what did these people agree to, and where?",
            place="wording",
            hint="You vouch for them: your words are kept as the proof of consent.",
        )


async def _received(request: Request, parts: Container, visitor: Visitor) -> int:
    def admit(fields: dict[str, str]) -> None:
        refuse_forgeries(request, parts, fields.get("csrf", ""))

    uploads, most = parts.uploads, parts.settings.imports.max_megabytes * _MEGABYTE
    part = uploads.part()
    try:
        upload = Upload(part, most=most, admit=admit)
        try:
            await upload.receive(request)
        except UploadError:
            await upload.drain()
            raise

        def keep() -> int:
            with transaction(parts.database) as session:
                who = actor(request, visitor)
                number = import_jobs.create(
                    session, who, name=upload.name, size=upload.size, now=_now()
                )
                # Before the commit, so that a process that sees the row finds the file.
                part.rename(uploads.upload(number))
                return number

        return await run_in_threadpool(keep)
    finally:
        part.unlink(missing_ok=True)


def _list(request: Request, parts: Container, *, problem: UserError | None = None) -> Response:
    with reading(parts.database) as session:
        return page(
            request,
            "imports.html",
            status=problem.status if isinstance(problem, UploadError) else 400 if problem else 200,
            jobs=import_jobs.listing(session),
            most=parts.settings.imports.max_megabytes,
            problem=problem,
        )


def _show(
    request: Request,
    parts: Container,
    job_id: int,
    *,
    template: str = "import.html",
    problem: UserError | None = None,
    typed: dict[str, Any] | None = None,
    chosen: tuple[str, ...] = (),
) -> Response:
    with reading(parts.database) as session:
        job: Row[Any] | None = import_jobs.find(session, job_id)
        if job is None:
            raise HTTPException(404)
        return page(
            request,
            template,
            status=400 if problem else 200,
            job=job,
            told=job.report or job.found,
            over=job.state in OVER,
            offered=topics.offered(session) if job.state == JobState.CHECKED else [],
            rejects=parts.uploads.rejects(job_id).exists(),
            meanings=column_mapping.MEANINGS,
            word_meanings=column_mapping.WORD_MEANINGS,
            mapped=dict(job.options.get("mapping") or ()),
            explained=dict(job.options.get("words") or ()),
            problem=problem,
            typed=typed or {},
            chosen=chosen,
        )


def _now() -> datetime:
    return datetime.now(UTC)
