"""SendGrid's Email Activity: mails that the account has taken, found by what we wrote on them.

Source: Twilio's OpenAPI (email activity) and its query reference; ``unique_args`` are what
a request calls custom args. It costs extra, does not exist in the EU, is asked six times a
minute at most, and knows a mail some time after it was taken: what is not found may be there.
"""

from collections.abc import Mapping
from datetime import datetime

from newsletter.errors import ProviderError
from newsletter.provider.account import Ask
from newsletter.provider.events import BATCH, MADE, SEND, made_mark

_PATH = "messages"
#: A few are enough: each of a batch's mails proves all of it.
_LIMIT = 10


def recipients(ask: Ask, *, send_id: int, batch: int, made_at: datetime) -> list[str]:
    """Addresses of some mails of a batch that SendGrid shows; empty where it shows none.

    Raises ProviderError when it does not answer.
    """
    wanted = {SEND: send_id, BATCH: batch, MADE: made_mark(made_at)}
    query = " AND ".join(f"unique_args['{name}']=\"{value}\"" for name, value in wanted.items())
    answer = ask("get", _PATH, query={"query": query, "limit": _LIMIT})
    found = answer.get("messages") if isinstance(answer, Mapping) else None
    if not isinstance(found, list):
        raise ProviderError(
            "the answer makes no sense: it lists no messages",
            place=_PATH,
            hint="Make sure that sendgrid.host is SendGrid's.",
        )
    return [str(mail.get("to_email") or "") for mail in found if isinstance(mail, Mapping)]
