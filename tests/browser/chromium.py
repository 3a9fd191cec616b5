"""The machine's browser, and what every page in it owes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

#: The innermost element that makes a page wider than its window; empty where none does.
TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return "";
  const wide = [...document.querySelectorAll("body *")].filter(
    one => one.getBoundingClientRect().right > width + 1);
  return wide.at(-1)?.outerHTML ?? "something";
}"""
#: Keeps a headless browser from looking for its maker's servers.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's browser; the test is skipped where there is none."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium and no google-chrome on this machine")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


def wear(tab: Page, scheme: str) -> None:
    """``scheme`` (light or dark), without motion: colours on their way have another contrast."""
    tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]


def complaints(tab: Page) -> list[str]:
    """What axe-core finds on the page as it stands."""
    return [
        f"{tab.url}: {one['id']}: {node['html'][:200]}: {node.get('failureSummary', '')}"
        for one in Axe().run(tab).response["violations"]
        for node in one["nodes"]
    ]


def accessible(tab: Page) -> None:
    """Nothing for axe-core to complain of, dark and light; the page is light afterwards."""
    for scheme in ("dark", "light"):
        wear(tab, scheme)
        found = complaints(tab)
        assert not found, (scheme, *found)
