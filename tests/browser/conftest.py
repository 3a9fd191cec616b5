"""The stage of pages: a browser, a console, and its owner. Modules furnish what they need more."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from newsletter.accounts.models import Role
from tests.browser.chromium import chromium
from tests.browser.console import RunningService, running_service

_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in a browser take seconds, so they are slow unless they are marked as quick."""
    for item in items:
        if item.path.is_relative_to(_HERE) and item.get_closest_marker("quick") is None:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[RunningService]:
    with running_service(tmp_path_factory.mktemp("service"), browser) as opened:
        yield opened


@pytest.fixture
def role() -> Role:
    """Whose tab it is; modules say otherwise."""
    return Role.OWNER


@pytest.fixture
def tab(service: RunningService, role: Role) -> Iterator[Page]:
    page = service.signed_in(role)
    yield page
    page.context.close()
