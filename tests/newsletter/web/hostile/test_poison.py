"""Stored and reflected scripting: no text of a table or of a request comes to life on any page.

Over all tables, all routes and all states; see poison.py.
"""

import re
from collections.abc import Callable
from html import escape

import pytest
from fastapi import Response
from fastapi.routing import APIRoute

from newsletter.web.app import create_app
from tests.newsletter.web.conftest import Office
from tests.newsletter.web.hostile.faults import is_fault
from tests.newsletter.web.hostile.poison import MARKUP, PROGRAM, World, damage

HTML = {"accept": "text/html"}
#: GET routes that never answer with 200, and why.
NO_PAGE = {
    "/": "it leads to another page",
    "/view/{token}": "it leads to another page",
    "/console/setup/{token}": "there are users already",
    "/subscribe/challenge": "there is none in this setting",
    "/metrics": "it is off in this setting",
    "/readyz": "no worker and no clock run here",
    "/console/subscribers/import/{job_id:int}/rejects": "its file is not there",
}


#: What a page escapes does not depend on the database, and there are many pages.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(params=[MARKUP, PROGRAM], ids=["markup", "program"])
def world(
    request: pytest.FixtureRequest,
    open_office: Callable[..., Office],
    environment: dict[str, str],
) -> World:
    environment["NEWSLETTER_INBOUND__KEY"] = "k" * 32
    return World(open_office(require_second_factor="false"), request.param)


def parameters(route: APIRoute) -> tuple[list[str], list[str]]:
    """Names in the query and in the form that a route reads, whatever its dependencies add."""
    query, form, waiting = [], [], [route.dependant]
    while waiting:
        one = waiting.pop()
        query += [each.alias for each in one.query_params]
        form += [each.alias for each in one.body_params]
        waiting += one.dependencies
    return query, [name for name in form if name != "csrf"]


@pytest.mark.slow
def test_no_stored_text_comes_to_life_on_any_page(world: World) -> None:
    alive, unseen, shown = [], set(), 0
    for route in world.places.routes:
        if "GET" not in (route.methods or ()):
            continue
        seen = False
        for path in world.places.paths(route):
            for who, browser in world.visitors.items():
                answer = browser.client.get(path, headers=HTML)
                assert not is_fault(path, answer.status_code), f"{path} as {who}"
                alive += [f"{path} as {who}: {what}" for what in damage(answer)]
                seen = seen or answer.status_code == 200
                shown += "zz" in answer.text
        if not seen and route.path not in NO_PAGE:
            unseen.add(route.path)
    assert alive == []
    assert unseen == set(), "of these pages nothing was seen: tell poison.py what they need"
    assert shown > 30


@pytest.mark.slow
def test_nothing_that_is_asked_for_comes_to_life(world: World) -> None:
    alive = []
    for route in world.places.routes:
        query, form = parameters(route)
        for path in list(world.places.paths(route))[:2]:
            for who, browser in world.visitors.items():
                for method in (route.methods or set()) & {"GET", "POST"}:
                    answer = browser.client.request(
                        method,
                        path,
                        params=dict.fromkeys(query, world.payload),
                        data={**dict.fromkeys(form, world.payload), "csrf": browser.csrf}
                        if method == "POST"
                        else None,
                        headers=HTML | {"user-agent": world.payload, "accept-language": "zz"},
                    )
                    fault = is_fault(path, answer.status_code)
                    assert not fault, f"{method} {path} as {who}"
                    where = answer.headers.get("location", "/")
                    inside = r"/(?![/\\\\])|http://127\.0\.0\.1:8000/|[a-z]+$"
                    assert re.match(inside, where), f"{path}: {where}"
                    alive += [f"{method} {path} as {who}: {what}" for what in damage(answer)]
    assert alive == []


@pytest.mark.slow
def test_a_page_that_escapes_nothing_would_be_found(office: Office) -> None:
    """The net holds: a page as it must not be is caught, in each of three ways."""

    app = create_app(office.parts, background=False)
    for bad in (f"<p>{MARKUP}", f"<p title={escape(MARKUP)}>", f'<a href="{PROGRAM}">'):
        app.add_api_route("/bad", lambda bad=bad: Response(bad, media_type="text/html"))
        browser = Office(office.parts, app, office._open).browser()
        assert damage(browser.get("/bad")), bad
        app.router.routes.pop()
