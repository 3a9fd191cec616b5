"""The code is as ARCHITECTURE.md draws it."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from newsletter.cli.main import COMMANDS, application
from newsletter.db.engine import open_database, upgrade

ROOT = Path(__file__).parent.parent
#: Modules in a folder; a folder with more of them is cut by concept.
LIMIT = 14
PACKAGES = [*ROOT.glob("newsletter/**/*.py"), *ROOT.glob("subscribers/**/*.py")]


def test_imports_go_down_the_layers_and_through_the_adapters() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_layers_of_the_linter_are_those_of_the_picture() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    picture = (ROOT / "ARCHITECTURE.md").read_text().split("## Layers")[1].split("```")[1]
    drawn = [re.split(r"\s{2,}", line)[0] for line in picture.strip().splitlines()]
    assert drawn == [layer.replace("newsletter.", "") for layer in layers]


def test_every_adapter_of_the_page_is_held_by_a_contract() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text().split("## Adapters")[1].split("##")[0]
    adapters = re.findall(r"^\| (\S+) \| (\S+\.py) \|$", page, re.MULTILINE)
    assert len(adapters) == 9
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    held = " ".join(
        line for contract in contracts["contracts"] for line in contract.get("ignore_imports", [])
    )
    for _, path in adapters:
        assert path.removesuffix(".py").replace("/", ".") + " ->" in held


def test_a_process_that_only_sends_loads_nothing_that_renders_checks_or_asks_dns() -> None:
    loads = "import sys, newsletter.container, newsletter.cli.processes.worker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loads], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"mjml", "premailer", "lxml", "dns", "jinja2", "markdown_it", "fastapi"}
    heavy |= {"opentelemetry"}
    assert heavy & set(done.stdout.split()) == set()


#: What each command line may not import: libraries of services that it does not run.
SERVICES = {"fastapi", "uvicorn", "sendgrid", "apscheduler", "procrastinate", "alembic", "argon2"}
SERVICES |= {"opentelemetry"}
RENDERING = {"mjml", "premailer", "lxml", "jinja2", "markdown_it", "dns"}
LIGHT = {
    "": SERVICES | RENDERING | {"sqlalchemy", "pydantic"},
    "--help": SERVICES | RENDERING | {"sqlalchemy", "pydantic"},
    "--version": SERVICES | RENDERING | {"sqlalchemy", "pydantic"},
    "sends": SERVICES | RENDERING,
    "sends --help": SERVICES | RENDERING,
    "render --help": SERVICES,
}


@pytest.mark.parametrize(("words", "heavy"), LIGHT.items())
def test_a_command_loads_only_what_it_uses(words: str, heavy: set[str], tmp_path: Path) -> None:
    loads = (
        "import sys, contextlib\nfrom newsletter.cli.main import run\n"
        f"sys.argv[1:] = {words.split()!r}\n"
        "with contextlib.suppress(SystemExit): run()\n"
        "print(*sys.modules)"
    )
    url = f"sqlite:///{tmp_path / 'newsletter.db'}"
    engine = open_database(url)
    upgrade(engine)
    engine.dispose()
    done = subprocess.run(
        [sys.executable, "-c", loads],
        cwd=ROOT,
        env={**os.environ, "NEWSLETTER_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=True,
    )
    assert heavy & set(done.stdout.splitlines()[-1].split()) == set()


def test_the_root_knows_the_help_of_its_commands() -> None:
    root = typer.main.get_command(application())
    for name, _, _, told in COMMANDS:
        found = root.commands[name].help  # type: ignore[attr-defined]
        assert " ".join(found.partition("\n\n")[0].split()) == told


def test_no_module_has_a_name_without_a_purpose() -> None:
    forbidden = {"utils", "helpers", "common", "manager", "misc"}
    assert [path for path in PACKAGES if path.stem in forbidden] == []


def test_no_folder_has_more_modules_than_one_can_read_at_a_glance() -> None:
    folders = {path.parent for path in PACKAGES if path.parent.name != "versions"}
    sizes = {
        folder.relative_to(ROOT): sum(path.stem != "__init__" for path in folder.glob("*.py"))
        for folder in folders
    }
    assert {folder: size for folder, size in sizes.items() if size > LIMIT} == {}


def test_no_two_modules_of_a_package_have_one_name() -> None:
    for package in ("newsletter/sending", "newsletter/tracking", "subscribers"):
        names = [path.stem for path in ROOT.glob(f"{package}/**/*.py") if path.stem != "__init__"]
        assert sorted(names) == sorted(set(names)), package


def test_every_package_says_what_it_is_for() -> None:
    for path in ROOT.glob("newsletter/**/__init__.py"):
        if "migrations" not in path.parts and path.parent.name != "caniemail":
            assert ast.get_docstring(ast.parse(path.read_text())), path
