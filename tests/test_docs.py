"""The documentation is true: commands, options, settings, targets, links and states exist."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from newsletter.cli.main import application
from newsletter.issues.states import ISSUE_NEXT
from newsletter.sending.states import (
    BATCH_NEXT,
    SEND_NEXT,
    BatchState,
    DeliveryState,
    SendState,
)
from newsletter.settings.load import resource
from subscribers.segments import parser as segment_parser
from tests import docs_reference

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"))
)
ROOT_COMMAND = typer.main.get_command(application())
#: Options of other programs: pg_dump and pg_restore, curl, make chaos, pip.
OTHER_OPTIONS = {
    "--rounds",
    "--people",
    "--only",
    "--seed",
    "--requests",
    "--help",
    "--all",
    "--durations",
}


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """The fenced blocks of a page, also those that are indented in a list."""
    return re.findall(r"^ *```[^\n]*\n(.*?)^ *```", read(page), re.M | re.S)


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", read(page), flags=re.M | re.S)


def inline(page: str) -> list[str]:
    """The code within the sentences and tables of a page."""
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", prose(page))]


@pytest.mark.parametrize("name", docs_reference.PAGES)
def test_generated_pages_are_current(name: str) -> None:
    made = docs_reference.PAGES[name]()
    assert (docs_reference.REFERENCE / name).read_text(encoding="utf-8") == made, (
        f"docs/reference/{name} is stale: run `.venv/bin/python -m tests.docs_reference`"
    )


# Commands and options


def mentions(page: str) -> list[str]:
    """Every ``newsletter …`` that a page has in code, with its arguments and options."""
    joined = [block.replace("\\\n", " ") for block in blocks(page)]
    lines = [line.partition(" #")[0] for block in joined for line in block.splitlines()]
    return [
        part.strip().removeprefix("$ ")
        for code in (*lines, *inline(page))
        for part in re.split(r"&&|;|\s\|\s|`", code)
        if re.match(r"(\$ )?newsletter [a-z-]", part.strip())
    ]


def resolved(mention: str) -> list[tuple[Any, list[str]]]:
    """The commands that a mention names, each with the words after it; fails if one is unknown."""
    words = re.sub(r"['\"].*?['\"]", "TEXT", mention.replace("…", "")).split()
    found: list[tuple[Any, list[str]]] = [(ROOT_COMMAND, words[1:])]
    while True:
        further = []
        for command, rest in found:
            below = getattr(command, "commands", {})
            names = rest[0].strip("[]").split("|") if rest else []
            if not below or not names or names[0].startswith("-") or names[0].isupper():
                further.append((command, rest))
                continue
            assert set(names) <= set(below), f"there is no such command: {mention}"
            further += [(below[name], rest[1:]) for name in names]
        if further == found:
            return found
        found = further


def options(command: Any) -> set[str]:
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def every(command: Any) -> Iterator[Any]:
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from every(child)


def unknown_options(mention: str) -> set[str]:
    """The options of a mention that its command does not have."""
    meant = resolved(mention)
    known = set().union(*(options(command) for command, _ in meant)) | {"--help"}
    named = {
        option
        for _, rest in meant
        for option in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", " ".join(rest))
    }
    return named - known


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    for mention in mentions(page):
        assert unknown_options(mention) == set(), f"{page}: {mention}"


@pytest.mark.parametrize("page", PAGES)
def test_options_exist_somewhere(page: str) -> None:
    """Options apart from their command, such as ``--json`` in a sentence."""
    known = set().union(*(options(command) for command in every(ROOT_COMMAND))) | OTHER_OPTIONS
    named = {
        option
        for code in inline(page)
        if not re.match(r"(make|curl|pg_dump|pip) ", code)
        for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", code)
    }
    assert named - known == set(), page


def test_an_option_that_does_not_exist_is_noticed() -> None:
    assert unknown_options("newsletter subscribers import people.csv --no-such") == {"--no-such"}
    assert unknown_options("newsletter issue test a.md --segment all") == {"--segment"}
    with pytest.raises(AssertionError, match="no such command"):
        resolved("newsletter sends abolish 7")


# Settings, targets of make, segment rules


def settings() -> dict[str, Any]:
    return tomllib.loads((resource("config") / "default.toml").read_text(encoding="utf-8"))


def test_every_setting_is_explained_in_the_default_file() -> None:
    lines = (resource("config") / "default.toml").read_text(encoding="utf-8").splitlines()
    unexplained = [
        line
        for above, line in itertools.pairwise(lines)
        if re.match(r"^\w+ = ", line) and not above.startswith("#")
    ]
    assert unexplained == []


@pytest.mark.parametrize("page", PAGES)
def test_settings_exist(page: str) -> None:
    """``site.base_url`` in a sentence, NEWSLETTER_SITE__BASE_URL anywhere, and TOML in blocks."""
    tables = {name: value for name, value in settings().items() if isinstance(value, dict)}
    known = {f"{table}.{key}" for table, keys in tables.items() for key in keys}
    known |= settings().keys() - tables.keys()
    named = {
        found[1]
        for code in inline(page)
        if (found := re.match(rf"((?:{'|'.join(tables)})\.[a-z_]+)(?: =|$)", code))
        # Names of files are written alike.
        and not found[1].endswith((".py", ".md", ".toml"))
    }
    variables = {
        # A secret may be in a file that another variable names.
        re.sub(r"(?<!_)_FILE$", "", name).lower().replace("__", ".")
        for name in re.findall(r"\bNEWSLETTER_([A-Z][A-Z_]*[A-Z])\b", read(page))
    }
    written = {
        f"{table}.{key}"
        for block in re.findall(r"^```toml\n(.*?)^```", read(page), re.M | re.S)
        for table, keys in tomllib.loads(block).items()
        if table in tables
        for key in keys
    }
    # NEWSLETTER_CONFIG names the file with the settings.
    assert (named | variables | written) - known - {"config"} == set(), page


def test_every_setting_is_in_the_reference() -> None:
    page = read("docs/reference/settings.md")
    for section, keys in settings().items():
        for key in [f"{section}.{key}" for key in keys] if isinstance(keys, dict) else [section]:
            assert f"| `{key}` |" in page


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_exist(page: str) -> None:
    known = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    code = [*inline(page), *(line for block in blocks(page) for line in block.splitlines())]
    named = {found[1] for line in code if (found := re.match(r"\s*make ([a-z-]+)", line))}
    assert named - known == set(), page


def rules() -> list[tuple[str, str]]:
    """Each segment rule that a page shows, with its page."""
    found = []
    for page in PAGES:
        made = re.findall(r"newsletter segment create \S+ '([^']+)'", read(page))
        if page == "docs/reference/segment-language.md":
            shown = [block for block in blocks(page) if "^^" not in block]
            lines = "".join(shown).splitlines()
            made += [line for line in lines if line and not line.startswith("newsletter ")]
        found += [(page, rule) for rule in made]
    return found


@pytest.mark.parametrize(("page", "rule"), rules())
def test_segment_rules_are_valid(page: str, rule: str) -> None:
    segment_parser.names(rule)


# Labels of pages

#: A label of the console stands in the guides in italics: *Sends → New send*.
_LABEL = re.compile(r"(?<!\*)\*([A-Z][^*\n]{2,60})\*(?!\*)")


def test_the_guides_name_labels_as_the_console_has_them() -> None:
    shown = " ".join(
        re.sub(r"\s+", " ", path.read_text(encoding="utf-8")).lower()
        for suffix in ("html", "py", "js")
        for path in (ROOT / "newsletter" / "web").rglob(f"*.{suffix}")
    )
    # sendgrid.md names the labels of SendGrid's own pages.
    guides = sorted({*(ROOT / "docs" / "guides").glob("*.md")} - {ROOT / "docs/guides/sendgrid.md"})
    named = [
        (guide.name, label)
        for guide in guides
        for found in _LABEL.findall(guide.read_text(encoding="utf-8"))
        for label in found.split(" → ")
    ]
    assert len(named) > 10
    books = {"Statistical Methods for Rates and Proportions"}
    assert [one for one in named if one[1].lower() not in shown and one[1] not in books] == []


# Links


def links(page: str) -> list[str]:
    """The targets of a page's links within the project."""
    text = re.sub(r"`[^`\n]*`", "`code`", prose(page))
    return re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in headings
    }


def target(page: str, link: str) -> tuple[str, str]:
    """The file that a link leads to, from the root of the project, and its anchor."""
    name, _, anchor = link.partition("#")
    path = (ROOT / page).parent.joinpath(name).resolve() if name else ROOT / page
    return path.relative_to(ROOT).as_posix(), anchor


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        path, anchor = target(page, link)
        assert (ROOT / path).exists(), f"{page} links to {link}"
        assert not anchor or anchor in anchors(path), f"{page} links to {link}"


def test_every_page_is_reachable_from_the_index() -> None:
    """In two clicks at most."""
    reached = {"docs/README.md"}
    for _ in range(2):
        linked = {(page, link) for page in reached if page in PAGES for link in links(page)}
        reached |= {target(page, link)[0] for page, link in linked}
    assert {*PAGES} - reached == {"README.md"}


@pytest.mark.parametrize("folder", ["newsletter", "subscribers", "config", "templates", "tests"])
def test_the_program_names_pages_that_exist(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in {".py", ".toml", ".html", ".mjml", ".css", ".js"}:
            text = path.read_text(encoding="utf-8")
            for name in re.findall(r"(?<![\w/.])(docs/[\w/.-]+\.md)", text):
                assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} names {name}"


# The glossary


@pytest.mark.parametrize("states", [SendState, BatchState, DeliveryState])
def test_every_state_is_in_the_glossary(states) -> None:
    glossary = read("ARCHITECTURE.md").split("## Glossary")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (\w+) \|(.*)\|$", glossary, re.M))
    term = states.__name__.removesuffix("State").lower()
    named = set(re.findall(r"`(\w+)`", rows[term]))
    assert named == {state.value for state in states}


@pytest.mark.parametrize(
    ("page", "number", "table"),
    [
        ("docs/guides/review.md", 0, ISSUE_NEXT),
        ("docs/how-it-works/life-of-a-send.md", 0, SEND_NEXT),
        ("docs/how-it-works/life-of-a-send.md", 1, BATCH_NEXT),
    ],
)
def test_diagrams_show_transitions_that_are_allowed(page: str, number: int, table) -> None:
    diagram = [block for block in blocks(page) if block.startswith("stateDiagram")][number]
    edges = set(re.findall(r"^ *(\w+) --> (\w+)", diagram, re.M))
    allowed = {(state.value, after.value) for state, nexts in table.items() for after in nexts}
    assert edges
    assert edges - allowed == set()


def test_every_package_is_in_the_architecture() -> None:
    text = read("ARCHITECTURE.md").split("## Packages")[1].split("\n## ")[0]
    for above in ("newsletter", "newsletter/sending", "newsletter/tracking", "subscribers"):
        listed = set(re.findall(r"^\| (\w+)/ \|", table_under(text, f"| in {above}/ |"), re.M))
        packages = {path.parent.name for path in ROOT.glob(f"{above}/*/__init__.py")}
        assert listed == packages, above


def table_under(text: str, head: str) -> str:
    return text.split(head)[1].split("\n\n")[0]
