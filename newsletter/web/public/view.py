"""An issue on the web, as the person got it."""

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from newsletter.database import reading
from newsletter.errors import LinkError
from newsletter.links import Purpose
from newsletter.rendering.placeholders import Placeholders, fill
from newsletter.sending.models import Batch, Delivery, Variant
from newsletter.web.dependencies import Parts
from subscribers.models import Subscriber
from subscribers.schema import table_of

router = APIRouter()
_delivery, _batch, _variant = table_of(Delivery), table_of(Batch), table_of(Variant)

#: A mail styles itself and shows pictures from anywhere on the web; it runs nothing.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-popups "
    "allow-top-navigation-by-user-activation"
)


@router.head("/view/{token}", include_in_schema=False)
@router.get("/view/{token}")
def view(token: str, parts: Parts) -> Response:
    """The HTML part with this person's values; without them once the person is gone."""
    issue_id, subscriber_id = parts.links.read(token, Purpose.RECIPIENT).numbers
    with reading(parts.database) as session:
        found = session.execute(
            select(_variant.c.html, _variant.c.placeholders)
            .join(_batch, _batch.c.variant_id == _variant.c.id)
            .join(
                _delivery,
                (_delivery.c.send_id == _batch.c.send_id) & (_delivery.c.batch == _batch.c.number),
            )
            .where(_delivery.c.issue_id == issue_id, _delivery.c.subscriber_id == subscriber_id)
        ).one_or_none()
        person = session.get(Subscriber, subscriber_id)
        values = (
            {"name": person.name, "email": person.email, "attributes": person.attributes}
            if person
            else {"name": "", "email": "", "attributes": {}}
        )
    if found is None:
        raise LinkError("this issue is no longer kept", hint="Newer issues are in your inbox.")
    placeholders = Placeholders.from_json(found.placeholders)
    html = fill(found.html, placeholders.substitutions(values, token))
    return HTMLResponse(
        html,
        headers={
            "Content-Security-Policy": _POLICY,
            "Cache-Control": "no-store",
            "X-Robots-Tag": "noindex",
        },
    )
