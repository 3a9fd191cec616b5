"""The console in tests: people of each role, and browsers that post as our forms do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from newsletter.accounts import sessions, users
from newsletter.accounts.models import Role, SignInStage, User
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.settings.load import load
from newsletter.web.app import create_app
from newsletter.web.base_path import base_path
from newsletter.web.console.base import session_cookie

HTML = {"accept": "text/html"}
PASSWORD = "correct horse battery staple"


@dataclass
class Browser:
    """One browser: keeps cookies, and posts with the token that our forms carry."""

    client: TestClient
    parts: Container

    @property
    def token(self) -> str:
        return self.client.cookies.get("console", path=self._path) or ""

    @token.setter
    def token(self, value: str) -> None:
        self.client.cookies.clear()
        # The jar calls a host without a dot so.
        self.client.cookies.set("console", value, domain="testserver.local", path=self._path)

    @property
    def _path(self) -> str:
        return base_path(self.parts.settings.site.base_url) or "/"

    @property
    def csrf(self) -> str:
        return session_cookie.form_token(self.parts.form_keys, self.token)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, headers=HTML, **more)

    def post(self, path: str, headers: dict[str, str] | None = None, **data: str) -> httpx.Response:
        return self.client.post(
            path, data={"csrf": self.csrf, **data}, headers=HTML | (headers or {})
        )

    def sign_in(self, email: str, password: str = PASSWORD, **more: str) -> httpx.Response:
        if not self.token:
            self.get("/console/sign-in")
        return self.post("/console/sign-in", email=email, password=password, **more)


@dataclass
class Office:
    """A service, its users, and as many browsers as a test needs."""

    parts: Container
    app: FastAPI
    _open: ExitStack
    #: What stands between browsers and the service.
    proxy: ASGIApp | None = None

    def browser(self, ip: str = "192.0.2.9") -> Browser:
        client = TestClient(self.proxy or self.app, follow_redirects=False, client=(ip, 50000))
        return Browser(self._open.enter_context(client), self.parts)

    def user(self, email: str, role: Role = Role.VIEWER, *, name: str = "") -> int:
        with transaction(self.parts.database) as session:
            return users.add(
                session,
                email,
                name=name,
                role=role,
                max_owners=9,
                now=datetime.now(UTC),
                hashed=self.parts.passwords.hashed(PASSWORD),
            ).id

    def signed_in(self, role: Role, email: str = "") -> Browser:
        """A browser of somebody with this role, past all factors."""
        email = email or f"{role}@example.org"
        table = table_of(User)
        with reading(self.parts.database) as session:
            user_id = session.scalar(select(table.c.id).where(table.c.email == email))
        user_id = user_id or self.user(email, role)
        browser = self.browser()
        with transaction(self.parts.database) as session:
            browser.token = sessions.begin(
                session,
                user_id,
                SignInStage.FULL,
                lasts=self.parts.settings.console.absolute_time,
                now=datetime.now(UTC),
                ip="192.0.2.9",
                browser="Test",
            )
        return browser


@pytest.fixture
def open_office(environment: dict[str, str]) -> Iterator[Callable[..., Office]]:
    """Opens a service whose console has these settings."""
    with ExitStack() as stack:

        def opened(**settings: str) -> Office:
            own = {f"NEWSLETTER_CONSOLE__{key.upper()}": value for key, value in settings.items()}
            parts = Container(load(environment | own))
            stack.callback(lambda: parts.database.dispose())
            return Office(parts, create_app(parts, background=False), stack)

        yield opened


@pytest.fixture
def office(open_office: Callable[..., Office]) -> Office:
    """A service where a password is enough."""
    return open_office(require_second_factor="false")
