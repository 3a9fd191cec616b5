"""The pages say what is true: settings, commands and states are all there."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from newsletter.cli.main import application
from newsletter.sending.states import BatchState, DeliveryState, SendState
from newsletter.settings import resource

ROOT = Path(__file__).parent.parent


def commands() -> set[str]:
    """Every command's words after ``newsletter``."""
    found = set()

    def walk(command: object, words: tuple[str, ...]) -> None:
        below = getattr(command, "commands", None)
        if below is None:
            found.add(" ".join(words))
            return
        for name, child in below.items():
            walk(child, (*words, name))

    walk(typer.main.get_command(application()), ())
    return found


def test_every_command_stands_in_the_readme() -> None:
    table = (ROOT / "README.md").read_text().split("## Commands")[1].split("\n## ")[0]
    named = set()
    for words in re.findall(r"`newsletter ([^`]*)`", table):
        plain = re.sub(r"\[(?!\w+\\\|)[^\]]*\]", "", words)
        head, *rest = plain.replace("[", "").replace("]", "").split()
        choices = rest[0].split("\\|") if rest and "\\|" in rest[0] else None
        if choices:
            named |= {f"{head} {choice}" for choice in choices}
        elif rest and rest[0].islower() and f"{head} {rest[0]}" in commands():
            named.add(f"{head} {rest[0]}")
        else:
            named.add(head)
    assert commands() - named == set()


def test_every_setting_is_explained_in_the_default_file() -> None:
    text = (resource("config") / "default.toml").read_text()
    lines = text.splitlines()
    unexplained = [
        line
        for above, line in itertools.pairwise(lines)
        if re.match(r"^\w+ = ", line)
        and not above.startswith("#")
        # The address to listen on and its port explain themselves side by side.
        and line.split(" = ")[0] not in {"host", "port", "per_address", "name"}
    ]
    assert unexplained == []
    assert tomllib.loads(text)


@pytest.mark.parametrize("states", [SendState, BatchState, DeliveryState])
def test_every_state_stands_in_the_architecture(states) -> None:
    picture = (ROOT / "ARCHITECTURE.md").read_text().split("## States")[1].split("## ")[0]
    assert [state for state in states if state.value not in picture] == []


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", *(str(p) for p in Path("docs").glob("**/*.md"))]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(
        r"\]\((?!https?:|mailto:|#)([^)#\s]+)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    ):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"
