"""The stage of pages: a browser, a console, and its owner. Modules furnish what they need more."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from newsletter.accounts.models import Role
from tests.browser.chromium import chromium
from tests.browser.console import Desk, running_desk


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Desk]:
    with running_desk(tmp_path_factory.mktemp("desk"), browser) as opened:
        yield opened


@pytest.fixture
def role() -> Role:
    """Whose tab it is; modules say otherwise."""
    return Role.OWNER


@pytest.fixture
def tab(desk: Desk, role: Role) -> Iterator[Page]:
    page = desk.signed_in(role)
    yield page
    page.context.close()
