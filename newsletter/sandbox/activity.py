"""Email Activity, as far as it is asked here: mails by address and custom args.

Source: Twilio's OpenAPI (tsg_email_activity_v3) and its query reference. Other terms of its
language are refused, as SendGrid refuses a field that it does not know.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from starlette.requests import Request

from newsletter.numbers import whole_number
from newsletter.sandbox.acceptance import Complaint
from newsletter.sandbox.api import errors
from newsletter.sandbox.store import NOT_GONE, SandboxEmail, Store

_TERM = re.compile(r"""\(?(?:(to_email)|unique_args\[['"]([^'"\]]+)['"]\])\s*=\s*"([^"]*)"\)?""")
_MOST = 1000


class Activity:
    """The answer to GET /v3/messages."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def messages(self, request: Request) -> object:
        """Some mails that went out and that the query describes; those first taken first."""
        query = request.query_params.get("query", "")
        terms = [_TERM.fullmatch(term.strip()) for term in query.split(" AND ")]
        limit = request.query_params.get("limit", "10")
        if not (most := whole_number(limit, most=_MOST)):
            return errors(400, Complaint("limit must be between 1 and 1000", "limit"))
        wanted = [(term[1], term[2], term[3]) for term in terms if term]
        if len(wanted) < len(terms):
            return errors(400, Complaint(f"invalid syntax: {query!r}", "query"))
        return {"messages": [*self._found(wanted, most)]}

    def _found(self, wanted: list[tuple[str, str, str]], limit: int) -> Iterator[dict[str, object]]:
        for mail in self._store.accepted(0):
            if limit and mail.state not in NOT_GONE and _is(mail, wanted):
                limit -= 1
                whole = self._store.mail(mail.id)
                body = whole.body if whole else {}
                yield {
                    "from_email": body.get("from", {}).get("email", ""),
                    "msg_id": f"{mail.message_id}.sandbox-0.{mail.number}",
                    "subject": mail.part.get("subject") or body.get("subject", ""),
                    "to_email": mail.email,
                    "status": "delivered" if mail.state == "delivered" else "processing",
                    "opens_count": 0,
                    "clicks_count": 0,
                    "last_event_time": f"{datetime.fromtimestamp(mail.at, UTC):%Y-%m-%dT%H:%M:%SZ}",
                }


def _is(mail: SandboxEmail, wanted: list[tuple[str, str, str]]) -> bool:
    args = {**mail.body["custom_args"], **mail.part.get("custom_args", {})}
    return all((mail.email if field else args.get(name)) == value for field, name, value in wanted)
