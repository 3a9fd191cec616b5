"""The wheel works outside the repository: built, installed into another environment, and run."""

import os
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.walks.test_readme import free_port, shell

ROOT = Path(__file__).parents[2]
ISSUE = '---\nsubject: Hello\n---\n\nDear {{ name | default("reader") }}.\n'


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the installed `newsletter`. Its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    hatchling = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(hatchling, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    installed = Path(sysconfig.get_path("purelib", vars=paths))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "venv" / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)],
        check=True,
        capture_output=True,
    )
    # Path files in that folder are not read, so the repository itself is not found.
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin"


def run(scripts: Path, folder: Path, *words: str, **environment: str) -> str:
    done = subprocess.run(
        [scripts / "newsletter", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_program_runs_outside_the_repository(scripts: Path, tmp_path: Path) -> None:
    where = "import newsletter, subscribers; print(newsletter.__file__, subscribers.__file__)"
    python = [scripts / "python", "-c", where]
    said = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.count(str(scripts.parent)) == 2
    assert run(scripts, tmp_path, "--version").startswith("newsletter ")
    port, mailbox = free_port(), free_port()
    ports = {
        "NEWSLETTER_SENDGRID__HOST": f"http://127.0.0.1:{mailbox}",
        "NEWSLETTER_SITE__BASE_URL": f"http://127.0.0.1:{port}",
        "NEWSLETTER_WEB__PORT": str(port),
    }
    run(
        scripts, tmp_path, "init", "--sandbox", "--name", "News", "--sender-email", "me@example.org"
    )
    (tmp_path / "issue.md").write_text(ISSUE)
    run(scripts, tmp_path, "render", "issue.md", "--out", "preview")
    assert "Dear reader." in (tmp_path / "preview" / "issue.html").read_text()
    # The checks and the migrations read files of their own.
    run(scripts, tmp_path, "segment", "create", "everybody")
    run(scripts, tmp_path, "check", "issue.md")
    serve = f"{scripts / 'newsletter'} serve --sandbox"
    with shell(serve, tmp_path, **ports) as service:
        service.wait_for("mailbox: ")
        link = service.wait_for(r"http://\S+/console/setup/\S+")[0]
        for url in (
            link,
            f"http://127.0.0.1:{port}/static/console.css",
            f"http://127.0.0.1:{port}/subscribe",
            f"http://127.0.0.1:{mailbox}/",
        ):
            with urllib.request.urlopen(url, timeout=60) as answer:
                assert answer.status == 200
    assert "Traceback" not in service.said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_shells_complete_commands(scripts: Path, tmp_path: Path, kind: str) -> None:
    assert "_NEWSLETTER_COMPLETE" in run(scripts, tmp_path, "--show-completion", kind)
    typed = {
        "bash": {"COMP_WORDS": "newsletter ini", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "newsletter ini"},
        "fish": {
            "_TYPER_COMPLETE_ARGS": "newsletter ini",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }[kind]
    told = {"_NEWSLETTER_COMPLETE": f"complete_{kind}", **typed}
    assert "init" in run(scripts, tmp_path, **told)
