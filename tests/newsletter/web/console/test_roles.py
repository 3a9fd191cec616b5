"""Who may open what: every route of the console, with every role."""

import re
from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import func, select

from newsletter.accounts.models import AuditEntry, Role, SignInStage
from newsletter.db.engine import reading
from newsletter.db.orm import table_of
from newsletter.web.console.base.permissions import Access
from tests.newsletter.web.conftest import PASSWORD, Office

#: Pages on the way in; everything else asks for a role.
OPEN = {
    "/console/sign-in",
    "/console/forgot",
    "/console/password/{token}",
    "/console/setup/{token}",
}
HALFWAY = {
    "/console/sign-in/code": {SignInStage.CODE},
    "/console/sign-out": set(SignInStage),
    "/console/account/factor": {SignInStage.ENROL, SignInStage.FULL},
}


def rules(dependant: Dependant) -> Iterator[Access]:
    """What a route declares, as FastAPI will ask it."""
    for below in dependant.dependencies:
        if isinstance(below.call, Access):
            yield below.call
        yield from rules(below)


def routes(office: Office) -> list[tuple[APIRoute, Access]]:
    """Every route of the console with its one rule."""
    found = []
    for context in iter_route_contexts(office.app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.path.startswith("/console"):
            declared = list(rules(route.dependant))
            assert len(declared) == 1, f"{route.path} declares {len(declared)} rules"
            found.append((route, declared[0]))
    assert len(found) > 20
    return found


#: The least role of each operation, as docs/guides/console.md says it: who may write, who may send,
#: who may decide who may. A new operation has to be put here.
OPERATIONS = {
    Role.VIEWER: """
        POST /console/account/name
        POST /console/account/password
        POST /console/account/sessions/{session_id:int}/end
        POST /console/account/sessions/end-others
        POST /console/account/factor/begin
        POST /console/account/factor/remove
        POST /console/account/recovery-codes
        POST /console/messages/read
        POST /console/account/notifications
    """,
    Role.APPROVER: """
        GET /console/schedules/new
        GET /console/schedules/{schedule_id:int}/edit
        POST /console/schedules
        POST /console/schedules/preview
        POST /console/schedules/{schedule_id:int}
        POST /console/schedules/{schedule_id:int}/pause
        POST /console/schedules/{schedule_id:int}/resume
        POST /console/schedules/{schedule_id:int}/skip
        POST /console/schedules/{schedule_id:int}/delete
        GET /console/sends/new
        POST /console/sends/new
        POST /console/sends/departures/resolve
        POST /console/sends/{send_id:int}/pause
        POST /console/sends/{send_id:int}/resume
        POST /console/sends/{send_id:int}/cancel
        POST /console/sends/{send_id:int}/retry
        POST /console/sends/{send_id:int}/pace
        POST /console/sends/{send_id:int}/resolve
        POST /console/sends/{send_id:int}/winner
        POST /console/issues/{slug}/approve
        POST /console/issues/{slug}/return
        POST /console/issues/{slug}/archive
    """,
    Role.OWNER: """
        POST /console/sends/departures
        POST /console/settings
        POST /console/settings/unset
        GET /console/settings/webhooks
        POST /console/settings/webhooks
        GET /console/settings/webhooks/{endpoint_id:int}
        POST /console/settings/webhooks/{endpoint_id:int}
        POST /console/settings/webhooks/{endpoint_id:int}/test
        POST /console/settings/webhooks/{endpoint_id:int}/disable
        POST /console/settings/webhooks/{endpoint_id:int}/enable
        POST /console/settings/webhooks/{endpoint_id:int}/rotate
        POST /console/settings/webhooks/{endpoint_id:int}/deliveries/{delivery_id:int}/resend
        POST /console/settings/webhooks/{endpoint_id:int}/delete
        POST /console/users
        POST /console/users/{user_id:int}/role
        POST /console/users/{user_id:int}/notifications
        POST /console/users/{user_id:int}/sessions/end
        POST /console/users/{user_id:int}/factor/reset
        POST /console/users/{user_id:int}/invite
        POST /console/users/{user_id:int}/remove
        POST /console/subscribers/{person_id:int}/erase
    """,
}


def path_of(route: APIRoute) -> str:
    """An address of the route, of something that does not exist."""
    return re.sub(r"\{\w+:int\}", "999", re.sub(r"\{(token|slug)\}", "x", route.path))


def test_every_route_declares_whom_it_is_for(office: Office) -> None:
    for route, rule in routes(office):
        if route.path in OPEN:
            assert (rule.least, rule.stages) == (None, frozenset())
        elif route.path in HALFWAY:
            assert (rule.least, set(rule.stages)) == (None, HALFWAY[route.path])
        else:
            assert rule.least is not None, f"{route.path} is open to every role"
            assert rule.stages == {SignInStage.FULL}


def test_whatever_sends_or_leads_to_a_send_needs_the_right_to_send(office: Office) -> None:
    declared = {
        f"{method} {route.path}": rule.least
        for route, rule in routes(office)
        for method in route.methods or ()
    }
    for least, listed in OPERATIONS.items():
        for operation in filter(None, map(str.strip, listed.splitlines())):
            assert declared[operation] == least, operation
    # What is not listed is an editor's work on texts and people, and can send nothing but tests.
    named = " ".join(OPERATIONS.values())
    rest = {one for one, least in declared.items() if one.startswith("POST") and least}
    for operation in rest - set(map(str.strip, named.splitlines())):
        assert declared[operation].covers(Role.EDITOR), operation
        assert not re.search(r"/(sends|schedules|users)\b", operation), operation


def test_every_route_with_every_role(office: Office) -> None:
    browsers = {each: office.signed_in(each) for each in Role}
    checked = 0
    for route, rule in routes(office):
        for each, browser in browsers.items():
            if rule.least is None or each.covers(rule.least):
                continue
            for method in route.methods or ():
                answer = browser.client.request(
                    method,
                    path_of(route),
                    headers={"accept": "text/html"},
                    data={"csrf": browser.csrf} if method == "POST" else None,
                )
                assert answer.status_code == 403, f"{method} {route.path} as {each}"
                checked += 1
    assert checked > 20
    entry = table_of(AuditEntry)
    with reading(office.parts.database) as session:
        assert session.scalar(select(func.count()).select_from(entry)) == 0


@pytest.mark.slow
def test_those_who_may_are_let_through(office: Office) -> None:
    for route, rule in routes(office):
        if rule.least is None or "GET" not in (route.methods or ()):
            continue
        for each in Role:
            if each.covers(rule.least):
                answer = office.signed_in(each).get(path_of(route))
                assert answer.status_code in {200, 303, 400, 404}, f"{route.path} as {each}"


def test_nobody_gets_anywhere_without_signing_in(office: Office) -> None:
    stranger = office.browser()
    stranger.get("/console/sign-in")
    for route, rule in routes(office):
        if not rule.stages:
            continue
        for method in route.methods or ():
            answer = stranger.client.request(
                method,
                path_of(route),
                data={"csrf": stranger.csrf} if method == "POST" else None,
            )
            assert answer.status_code == 303, f"{method} {route.path}"
            assert answer.headers["location"].startswith("/console/sign-in")


def test_every_post_without_the_forms_token_is_refused(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    for route, _ in routes(office):
        unsafe = set(route.methods or ()) - {"GET", "HEAD"}
        for method in unsafe:
            answer = owner.client.request(method, path_of(route))
            assert answer.status_code == 403, f"{method} {route.path}"


def test_navigation_shows_what_the_role_may_open(office: Office) -> None:
    assert "/console/users" in office.signed_in(Role.OWNER).get("/console/").text
    viewer = office.signed_in(Role.VIEWER).get("/console/")
    assert viewer.status_code == 200
    assert "/console/users" not in viewer.text


def test_another_role_is_in_force_with_the_next_click(office: Office) -> None:
    owner, editor = office.signed_in(Role.OWNER), office.signed_in(Role.EDITOR)
    found = owner.get("/console/users").text
    number = found.split("editor@example.org")[0].rsplit("/console/users/", 1)[1].split('"')[0]
    assert editor.get("/console/log").status_code == 403
    changed = owner.post(f"/console/users/{number}/role", role="owner", current=PASSWORD)
    assert changed.status_code == 303
    assert editor.get("/console/log").status_code == 200
    assert "role changed from editor to owner" in owner.get("/console/log").text
