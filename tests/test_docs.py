"""The pages say what is true: settings, commands and states are all there."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer.main

from newsletter.cli.main import application
from newsletter.sending.states import BatchState, DeliveryState, SendState
from newsletter.settings.load import resource
from subscribers.segments import parser as segment_parser

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("docs/**/*.md"),
        *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md")),
    )
)
ROOT_COMMAND = typer.main.get_command(application())
#: Of other programs that the pages speak of.
OTHERS = {"--rounds"}


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


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(
        r"\]\((?!https?:|mailto:|#)([^)#\s]+)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    ):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def mentions(page: str) -> list[str]:
    """What a page says behind ``newsletter`` in code: a command, perhaps with words and options."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [
        part.strip()
        for code in (*lines, *inline)
        for part in re.split(r"&&|;|\s\|\s", code)
        if part.strip().startswith("newsletter ") and not part.strip().endswith(".db")
    ]


def resolved(mention: str) -> list[tuple[Any, list[str]]]:
    """The commands that are meant, each with the words behind it; fails where there is none."""
    plain = mention.replace("\\|", "|").replace("…", "")
    words = re.sub(r"['\"].*?['\"]", "TEXT", plain).split()
    found: list[tuple[Any, list[str]]] = [(ROOT_COMMAND, words[1:])]
    while True:
        further = []
        for command, rest in found:
            below = getattr(command, "commands", {})
            names = rest[0].strip("[]").split("|") if rest else []
            if not below or not names or names[0].startswith("-"):
                further.append((command, rest))
                continue
            known = [name for name in names if name in below]
            if not known:
                # A group that is a command itself may be given what it is about.
                assert names[0].isupper(), f"there is no such command: {mention}"
                assert command is not ROOT_COMMAND, mention
                further.append((command, rest))
                continue
            assert known == names, f"{mention}: there is no {set(names) - set(known)}"
            further += [(below[name], rest[1:]) for name in names]
        if further == found:
            return found
        found = further


def options(command: Any) -> set[str]:
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_of_the_pages_exist(page: str) -> None:
    for mention in mentions(page):
        meant = resolved(mention)
        known = set().union(*(options(command) for command, _ in meant)) | {"--help"}
        named = {
            option
            for _, rest in meant
            for option in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", " ".join(rest))
        }
        assert named - known == set(), f"{page}: newsletter has no such option: {mention}"


@pytest.mark.parametrize("page", PAGES)
def test_options_that_stand_alone_exist_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
    known = set().union(*(options(command) for command in every(ROOT_COMMAND))) | OTHERS
    alone = re.findall(r"`(--[a-z][a-z-]*)[^`]*`", text)
    assert set(alone) - known == set()


def every(command: Any) -> Iterator[Any]:
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from every(child)


def rules() -> list[tuple[str, str]]:
    """Each segment rule that a page shows as one, with its page."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        made = re.findall(r"newsletter segment create \S+ '([^']+)'", text)
        if page == "docs/segments.md":
            blocks = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
            lines = "".join(block for block in blocks if "^^" not in block).splitlines()
            made += [line for line in lines if line and not line.startswith("newsletter ")]
        found += [(page, rule) for rule in made]
    return found


@pytest.mark.parametrize(("page", "rule"), rules())
def test_segment_rules_of_the_pages_are_rules(page: str, rule: str) -> None:
    segment_parser.condition(rule, now=datetime(2026, 1, 1, tzinfo=UTC))
