"""The console in a real browser: a running service, people signed in, and what every page owes.

With SCREENSHOTS=DIR in the environment, ``sound`` leaves pictures in DIR.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from playwright.sync_api import Browser, Page
from sqlalchemy import select
from starlette.types import ASGIApp

from newsletter.accounts import sessions, users
from newsletter.accounts.models import Role, SignInStage, User
from newsletter.cli.processes.serve import listen
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.db.orm import table_of
from newsletter.settings.load import load
from newsletter.web.app import create_app
from tests.browser.chromium import TOO_WIDE, complaints, wear
from tests.conftest import ADDRESS_KEY, LINK_KEY

WIDTHS = (375, 768, 1440)
SCHEMES = ("light", "dark")


@dataclass(frozen=True)
class RunningService:
    """A running service, and the browser that looks at it."""

    parts: Container
    url: str
    browser: Browser

    def signed_in(self, role: Role) -> Page:
        """A page of a browser of its own, past all factors; the test closes it."""
        email, now = f"{role}@example.org", datetime.now(UTC)
        table = table_of(User)
        with transaction(self.parts.database) as session:
            known = session.scalar(select(table.c.id).where(table.c.email == email))
            if known is None:
                known = users.add(session, email, name="", role=role, max_owners=9, now=now).id
            lasts = self.parts.settings.console.absolute_time
            token = sessions.begin(
                session,
                known,
                SignInStage.FULL,
                lasts=lasts,
                now=now,
                ip="192.0.2.9",
                browser="Test",
            )
        page = self.browser.new_page(viewport={"width": 1440, "height": 900})
        page.context.add_cookies([{"name": "console", "value": token, "url": f"{self.url}/"}])
        return page


@contextmanager
def running_service(
    folder: Path,
    browser: Browser,
    *,
    path: str = "",
    behind: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    **more: str,
) -> Iterator[RunningService]:
    """The service without its workers, on a port and a database of its own.

    It stands below ``path``, and behind what ``behind`` puts before it.
    """
    listening = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}{path}"
    settings = {
        "NEWSLETTER_DATABASE_URL": f"sqlite:///{folder}/newsletter.db",
        "NEWSLETTER_LINKS__KEYS": LINK_KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
        "NEWSLETTER_SENDGRID__API_KEY": "SG.test",
        "NEWSLETTER_SENDGRID__HOST": "http://127.0.0.1:9",
        "NEWSLETTER_SENDING__DEPARTURE_LOG": str(folder / "departures"),
        "NEWSLETTER_IMPORTS__FOLDER": str(folder / "imports"),
        "NEWSLETTER_SITE__NAME": "Engineering @ Scale",
        "NEWSLETTER_SITE__BASE_URL": url,
    }
    parts = Container(load(settings | more))
    app = create_app(parts, background=False)
    config = uvicorn.Config(
        behind(app), log_level="warning", lifespan="on", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield RunningService(parts, url, browser)
    server.should_exit = True
    thread.join()
    parts.database.dispose()


def sound(tab: Page, name: str) -> None:
    """Nothing wider than the screen, nothing for axe-core to complain of; ``name`` for pictures."""
    refused: list[str] = []
    tab.on("console", lambda said: refused.append(said.text) if said.type == "error" else None)
    tab.reload()
    for scheme in SCHEMES:
        wear(tab, scheme)
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            # The dark has other colours, and no other sizes.
            found = complaints(tab) if scheme == "light" or width == WIDTHS[0] else []
            assert not found, (width, scheme, *found)
            assert not (wide := tab.evaluate(TOO_WIDE)), (width, scheme, wide)
            if "SCREENSHOTS" in os.environ:
                picture = Path(os.environ["SCREENSHOTS"]) / f"console-{name}-{width}-{scheme}.png"
                tab.screenshot(path=picture, full_page=True)
    tab.emulate_media(color_scheme="light")
    assert not refused, refused
