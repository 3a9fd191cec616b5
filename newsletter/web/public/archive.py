"""The public archive: sent issues, an index, an Atom feed, and a sitemap for crawlers.

Nothing here is personal, so shared caches may store it, but not for long: an issue that is hidden
from the archive is gone from them within ``_CACHED``.
"""

import hashlib
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Annotated
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, HTTPException, Query, Request, Response

from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.rendering.webpage import to_page
from newsletter.sending.queries import archive as archive_queries
from newsletter.sending.queries.archive import ArchiveFilter
from newsletter.web.base_path import base_path
from newsletter.web.dependencies import Parts, page
from newsletter.web.public import archive_feeds as feeds

router = APIRouter()

_CACHED = "public, max-age=300"
_A_PAGE = 30
#: Entries of the sitemap (sitemaps.org allows 50,000) and of the feed.
_IN_MAP, _IN_FEED = 49_000, 20
#: An email has inline styles and images from any site; it runs no script.
_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' https: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-popups "
    "allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation"
)
_Series = Annotated[str | None, Query(max_length=100, pattern=r"^[a-z0-9-]*$")]


@router.head("/archive", include_in_schema=False)
@router.get("/archive")
def index(
    request: Request,
    parts: Parts,
    series: _Series = None,
    year: Annotated[int | None, Query(ge=1970, le=9998)] = None,
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    """Issues, latest first; 404 if a filter matches none."""
    zone = _require_archive(parts)
    choice = ArchiveFilter(series, *(_bounds(year, zone) if year else (None, None)))
    with reading(parts.database) as session:
        found = archive_queries.latest_issues(
            session, choice, limit=_A_PAGE + 1, skip=(number - 1) * _A_PAGE
        )
        every, span = (
            archive_queries.list_series(session),
            archive_queries.publication_range(session),
        )
    if not found and (series is not None or year is not None or number > 1):
        raise HTTPException(404)

    def address(**changed: str | int | None) -> str:
        query = {"series": series, "year": year, **changed}
        kept = {name: value for name, value in query.items() if value not in {None, 1}}
        return "/archive" + (f"?{urlencode(kept)}" if kept else "")

    shown = page(
        request,
        "archive.html",
        issues=[(one, one.published_at.astimezone(zone)) for one in found[:_A_PAGE]],
        series=series,
        year=year,
        every=every,
        years=_years(span, zone),
        address=address,
        newer=address(page=number - 1) if number > 1 else "",
        older=address(page=number + 1) if len(found) > _A_PAGE else "",
        url=parts.publication.base_url + address(page=number),
        base_url=parts.publication.base_url,
    )
    return _cacheable(request, bytes(shown.body), "text/html; charset=utf-8")


@router.head("/archive/feed.xml", include_in_schema=False)
@router.get("/archive/feed.xml")
def feed(request: Request, parts: Parts, series: _Series = None) -> Response:
    """The latest issues as an Atom feed (RFC 4287)."""
    _require_archive(parts)
    with reading(parts.database) as session:
        found = archive_queries.latest_issues(session, ArchiveFilter(series), limit=_IN_FEED)
    if not found and series is not None:
        raise HTTPException(404)
    body = feeds.atom(parts.publication, found, series=series)
    return _cacheable(request, body, "application/atom+xml; charset=utf-8")


@router.head("/archive/{slug}", include_in_schema=False)
@router.get("/archive/{slug}")
def issue(slug: str, request: Request, parts: Parts) -> Response:
    """One issue as a page. It shows what was sent, so it does not change."""
    zone, publication = _require_archive(parts), parts.publication
    with reading(parts.database) as session:
        found = archive_queries.find_published(session, slug)
    if found is None:
        raise HTTPException(404)
    url = f"{publication.base_url}/archive/{slug}"
    subscribe = f"{publication.base_url}/subscribe"
    links = {"unsubscribe_url": subscribe, "preferences_url": subscribe, "web_view_url": url}
    shown = page(
        request,
        "archive_issue.html",
        mail=to_page(found.html, found.placeholders, links=links),
        issue=found.issue,
        day=found.issue.published_at.astimezone(zone),
        url=url,
        base_url=publication.base_url,
        logo_url=publication.logo_url,
    )
    answer = _cacheable(
        request,
        bytes(shown.body),
        "text/html; charset=utf-8",
        modified=found.issue.published_at,
    )
    answer.headers["Content-Security-Policy"] = _POLICY
    return answer


@router.head("/sitemap.xml", include_in_schema=False)
@router.get("/sitemap.xml")
def sitemap(request: Request, parts: Parts) -> Response:
    """The sitemap of the public pages."""
    issues = []
    if parts.settings.archive.enabled:
        with reading(parts.database) as session:
            issues = list(archive_queries.latest_issues(session, limit=_IN_MAP))
    body = feeds.sitemap(parts.publication, issues, archive=parts.settings.archive.enabled)
    return _cacheable(request, body, "application/xml; charset=utf-8")


@router.head("/robots.txt", include_in_schema=False)
@router.get("/robots.txt")
def robots(request: Request, parts: Parts) -> Response:
    """Allows everything: personal pages exclude themselves with X-Robots-Tag."""
    path = base_path(parts.publication.base_url)
    lines = (
        "User-agent: *",
        f"Disallow: {path}/console/",
        f"Disallow: {path}/webhooks/",
        f"Sitemap: {parts.publication.base_url}/sitemap.xml",
    )
    return _cacheable(request, "\n".join((*lines, "")).encode(), "text/plain; charset=utf-8")


def _require_archive(parts: Container) -> ZoneInfo:
    """The publication's time zone; 404 if the archive is turned off."""
    if not parts.settings.archive.enabled:
        raise HTTPException(404)
    return ZoneInfo(parts.settings.site.timezone)


def _bounds(year: int, zone: ZoneInfo) -> tuple[datetime, datetime]:
    return datetime(year, 1, 1, tzinfo=zone), datetime(year + 1, 1, 1, tzinfo=zone)


def _years(span: tuple[datetime, datetime] | None, zone: ZoneInfo) -> list[int]:
    """The years of the archive, latest first."""
    if span is None:
        return []
    first, last = (moment.astimezone(zone).year for moment in span)
    return list(range(last, first - 1, -1))


def _cacheable(
    request: Request, body: bytes, kind: str, *, modified: datetime | None = None
) -> Response:
    """The body, or 304 if the client has it; an ETag outranks a date (RFC 9110 §13.2.2)."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"Cache-Control": _CACHED, "ETag": tag}
    if modified is not None:
        modified = modified.astimezone(UTC).replace(microsecond=0)
        headers["Last-Modified"] = format_datetime(modified, usegmt=True)
    known = request.headers.get("if-none-match")
    if known is not None:
        fresh = known.strip() == "*" or tag in {
            each.strip().removeprefix("W/") for each in known.split(",")
        }
    else:
        fresh = _is_fresh(request.headers.get("if-modified-since"), modified)
    if fresh:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=kind, headers=headers)


def _is_fresh(since: str | None, modified: datetime | None) -> bool:
    if since is None or modified is None:
        return False
    try:
        return modified <= parsedate_to_datetime(since).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return False
