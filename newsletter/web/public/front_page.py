"""The front page: redirects to the archive, or to the sign-up form if the archive is empty."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse

from newsletter.db.engine import reading
from newsletter.sending.queries import archive as archive_queries
from newsletter.web.dependencies import Parts

router = APIRouter()


@router.head("/", include_in_schema=False)
@router.get("/")
def front(_request: Request, parts: Parts) -> RedirectResponse:
    """Redirect to the archive if it has an issue, else to the sign-up form."""
    shows = False
    if parts.settings.archive.enabled:
        with reading(parts.database) as session:
            shows = bool(archive_queries.latest_issues(session, limit=1))
    return RedirectResponse("/archive" if shows else "/subscribe", status_code=302)
