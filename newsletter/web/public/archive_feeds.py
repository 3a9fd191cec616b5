"""The archive for programs: an Atom feed (RFC 4287) and a sitemap (sitemaps.org)."""

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from newsletter.rendering.rendered import Publication
from newsletter.sending.queries.archive import PublishedIssue

_ATOM = "http://www.w3.org/2005/Atom"
_MAP = "http://www.sitemaps.org/schemas/sitemap/0.9"
#: The required "updated" time of an empty feed.
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
#: Characters that XML 1.0 does not allow, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def atom(
    publication: Publication, issues: Sequence[PublishedIssue], *, series: str | None
) -> bytes:
    """A feed of these issues, latest first."""
    query = f"?{urlencode({'series': series})}" if series is not None else ""
    own = f"{publication.base_url}/archive/feed.xml{query}"
    feed = ET.Element("feed", {"xmlns": _ATOM, "xml:lang": _text(publication.language)})
    _add(feed, "id", own)
    _add(feed, "title", f"{publication.name}: {series}" if series else publication.name)
    _add(feed, "updated", _moment(max((one.published_at for one in issues), default=_NEVER)))
    ET.SubElement(feed, "link", rel="self", type="application/atom+xml", href=own)
    page = f"{publication.base_url}/archive{query}"
    ET.SubElement(feed, "link", rel="alternate", type="text/html", href=page)
    _add(ET.SubElement(feed, "author"), "name", publication.name)
    for one in issues:
        entry = ET.SubElement(feed, "entry")
        _add(entry, "id", entry_id(one))
        _add(entry, "title", one.title)
        _add(entry, "published", _moment(one.published_at))
        _add(entry, "updated", _moment(one.published_at))
        address = f"{publication.base_url}/archive/{one.slug}"
        ET.SubElement(entry, "link", rel="alternate", type="text/html", href=address)
        ET.SubElement(entry, "category", term=_text(one.series))
        if one.description:
            _add(entry, "summary", one.description)
    return _document(feed)


def entry_id(issue: PublishedIssue) -> str:
    """A permanent id, which does not change when the site moves (RFC 4287 §4.2.6)."""
    made = issue.created_at.astimezone(UTC).isoformat(timespec="microseconds")
    return uuid.uuid5(uuid.NAMESPACE_OID, f"newsletter issue {issue.slug} {made}").urn


def sitemap(publication: Publication, issues: Sequence[PublishedIssue], *, archive: bool) -> bytes:
    """The public pages."""
    found = ET.Element("urlset", xmlns=_MAP)
    pages = ["/subscribe", *(["/archive"] if archive else [])]
    for path in pages:
        _add(ET.SubElement(found, "url"), "loc", publication.base_url + path)
    for one in issues:
        url = ET.SubElement(found, "url")
        _add(url, "loc", f"{publication.base_url}/archive/{one.slug}")
        _add(url, "lastmod", _moment(one.published_at))
    return _document(found)


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = _text(text)


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _document(root: ET.Element) -> bytes:
    found: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return found
