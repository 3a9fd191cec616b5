"""An issue in the browser, under a URL that can be shared.

The link in an email is personal: with its token, anyone can unsubscribe its reader. So it only
redirects, to the public archive or to a URL whose token identifies the text that was sent, not the
reader. The page there has no personal values and no personal links.
"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.errors import LinkError
from newsletter.links import Purpose
from newsletter.rendering.placeholders import Placeholders
from newsletter.rendering.webpage import to_page
from newsletter.sending.queries import archive as archive_queries
from newsletter.web.dependencies import Parts, page

router = APIRouter()

#: An email has inline styles and images from any site; it runs no script.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-popups "
    "allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation"
)


@router.head("/view/{token}", include_in_schema=False)
@router.get("/view/{token}")
def view(token: str, parts: Parts) -> Response:
    """Redirect from a personal link to a URL that can be shared."""
    issue_id, subscriber_id = parts.links.read(token, Purpose.RECIPIENT).numbers
    with reading(parts.database) as session:
        variant = archive_queries.variant_of(session, issue_id, subscriber_id)
        slug = archive_queries.slug_of(session, issue_id)
        is_public = slug is not None and archive_queries.find_published(session, slug) is not None
    if is_public and parts.settings.archive.enabled:
        return _to(parts, f"/archive/{slug}")
    if variant is None:
        raise _gone()
    return _to(parts, f"/shared/{parts.links.token(Purpose.VIEW, variant)}")


@router.head("/shared/{token}", include_in_schema=False)
@router.get("/shared/{token}")
def shared(token: str, request: Request, parts: Parts) -> Response:
    """The HTML part for a reader without any data."""
    (number,) = parts.links.read(token, Purpose.VIEW).numbers
    with reading(parts.database) as session:
        found = archive_queries.variant_content(session, number)
    if found is None:
        raise _gone()
    subscribe = f"{parts.publication.base_url}/subscribe"
    links = {
        "unsubscribe_url": subscribe,
        "preferences_url": subscribe,
        "web_view_url": f"{parts.publication.base_url}/shared/{token}",
    }
    mail = to_page(found.html, Placeholders.from_json(found.placeholders), links=links)
    answer = page(request, "shared_issue.html", mail=mail, title=found.title)
    answer.headers["Content-Security-Policy"] = _POLICY
    return answer


def _to(parts: Container, path: str) -> Response:
    headers = {"Cache-Control": "no-store", "X-Robots-Tag": "noindex"}
    return RedirectResponse(parts.publication.base_url + path, status_code=303, headers=headers)


def _gone() -> LinkError:
    return LinkError(
        "this issue is no longer available", hint="You can find newer issues in your inbox."
    )
