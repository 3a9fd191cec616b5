"""The front page: there is none of its own, it leads to what there is to read, or to sign up."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse

from newsletter.db.engine import reading
from newsletter.sending.queries import archive as archive_queries
from newsletter.web.dependencies import Parts

router = APIRouter()


@router.head("/", include_in_schema=False)
@router.get("/")
def front(_request: Request, parts: Parts) -> RedirectResponse:
    """To the archive where everybody may read an issue, else to the signup form."""
    shows = False
    if parts.settings.archive.enabled:
        with reading(parts.database) as session:
            shows = bool(archive_queries.latest_issues(session, limit=1))
    return RedirectResponse("/archive" if shows else "/subscribe", status_code=302)
