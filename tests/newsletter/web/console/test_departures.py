"""Departure logs in the console: the operator's word is for the request that is named."""

import re
from datetime import UTC, datetime

from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.sending.ledger import forgotten_sends
from newsletter.sending.ledger.forgotten_sends import ForgottenSendInfo
from tests.newsletter.web.conftest import Office

HOME = "/console/sends/departures"


def test_a_button_settles_the_request_of_its_own_send(office: Office) -> None:
    database = office.parts.database
    with transaction(database) as session:
        for day in (1, 2):
            made = datetime(2026, 3, day, tzinfo=UTC)
            known = forgotten_sends.get_or_create(
                session, 1, made, ForgottenSendInfo("one", ""), now=made
            )
            forgotten_sends.add_recipients(session, known, 1, [b"%d" % day * 8], answered=False)
        one, other = forgotten_sends.unanswered(session)
    approver = office.signed_in(Role.APPROVER)
    page = approver.get(HOME).text
    named = re.findall(r'name="send" value="([0-9]+)"', page)
    assert named == [str(one.send), str(other.send)]
    said = {"issue": "one", "batch": "1", "answer": "resend"}
    for send in ("", "x", "99"):
        assert approver.post(f"{HOME}/resolve", **said, send=send).status_code == 409
    answer = approver.post(f"{HOME}/resolve", **said, send=str(other.send))
    assert answer.status_code == 303
    with reading(database) as session:
        assert forgotten_sends.unanswered(session) == [one]
