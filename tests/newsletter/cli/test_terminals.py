"""Every command on terminals: wide and narrow, dumb, without color, and in a pipe."""

import json
import os
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer.main
from rich.cells import cell_len

from newsletter.cli.main import application
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from tests.conftest import ADDRESS_KEY, LINK_KEY
from tests.forking import command
from tests.pseudo_terminal import ESCAPE, MARK, Terminal

SEED = Path(__file__).parents[1] / "issues" / "engineering-at-scale-2026-03-27.txt"
ISSUE = """---
subject: Hello
preheader: What happened this week, in five minutes.
---

Good day, {{ name | default("reader") }}.
"""
KEY = "SG.test"
FAR = "2099-01-01T07:00+00:00"


@dataclass(frozen=True)
class Mode:
    """What a command is run on; without columns it is a pipe."""

    columns: int | None
    environment: Mapping[str, str] = field(default_factory=dict)
    kind: str = "xterm-256color"

    @property
    def is_plain(self) -> bool:
        return self.columns is None or self.kind == "dumb" or bool(self.environment)


MODES = {
    "wide": Mode(200),
    "usual": Mode(80),
    "narrow": Mode(40),
    "dumb": Mode(80, kind="dumb"),
    "without color": Mode(40, {"NO_COLOR": "1"}),
    "pipe": Mode(None),
}


@pytest.fixture(params=MODES.values(), ids=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    return found


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(api_keys=frozenset({KEY}))) as running:
        yield running


@pytest.fixture
def settings(sandbox: RunningSandbox) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "NEWSLETTER_LINKS__KEYS": LINK_KEY,
        "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
        "NEWSLETTER_SENDGRID__API_KEY": KEY,
        "NEWSLETTER_SENDGRID__HOST": sandbox.url,
        "NEWSLETTER_CONSOLE__HASH_MEMORY": "8",
        "NEWSLETTER_CONSOLE__HASH_ROUNDS": "1",
    }


def commands(*, groups: bool = False) -> set[tuple[str, ...]]:
    """Every command's words, by the application itself; with ``groups`` also what holds them."""
    found = set[tuple[str, ...]]()

    def walk(command: object, words: tuple[str, ...]) -> None:
        below = getattr(command, "commands", {})
        if not below or groups or getattr(command, "invoke_without_command", False):
            found.add(words)
        for name, child in below.items():
            walk(child, (*words, name))

    walk(typer.main.get_command(application()), ())
    return found if groups else found - {()}


def said_by(
    words: Sequence[str], mode: Mode, settings: Mapping[str, str], folder: Path
) -> tuple[int, str]:
    """Exit code and all that a command prints in this mode."""
    if mode.columns is None:
        done = command(words, environment=settings, folder=folder)
        return done.returncode, done.stdout + done.stderr
    environment = {**settings, **mode.environment}
    with Terminal(
        words, environment=environment, folder=folder, columns=mode.columns, kind=mode.kind
    ) as terminal:
        return terminal.end(), terminal.said


#: What these print is somebody's text or data, which no line break may change.
AS_IT_IS = {"issue show", "subscribers data"}


def check_looks(said: str, mode: Mode, words: Sequence[str]) -> None:
    """What holds of everything that is printed."""
    assert "Traceback" not in said, said
    if mode.is_plain:
        assert "\x1b" not in said, said
    if mode.columns is None or " ".join(words[:2]) in AS_IT_IS:
        return
    plain = ESCAPE.sub("", said)
    # What rich cuts off ends so; help is compared word for word.
    assert "…" not in plain or "Usage: " in plain, plain
    for line in plain.split("\n"):
        # A bar is written over itself.
        last = line.rsplit("\r", 1)[-1]
        # A word that is longer than the line stays whole.
        # What Typer says of a wrong usage the terminal itself wraps.
        whole = len(last.split()) == 1 or "\t" in last or last.startswith(("Try '", "Error: "))
        assert cell_len(last) <= mode.columns or whole, (
            words,
            plain,
        )


@pytest.mark.slow
def test_every_command_has_help_that_fits(
    mode: Mode, settings: dict[str, str], tmp_path: Path
) -> None:
    root = typer.main.get_command(application())
    every = sorted(commands(groups=True))
    for words, said in zip(every, helps(every, mode, settings, tmp_path), strict=True):
        assert "Usage: " in said, words
        check_looks(said, mode, words)
        found = root
        for word in words:
            found = found.commands[word]  # type: ignore[attr-defined]
        plain = ESCAPE.sub("", said)
        for option in (name for one in found.params for name in one.opts if name.startswith("-")):
            assert option in plain, (words, option)
        for child in getattr(found, "commands", {}).values():
            assert " ".join(child.help.partition("\n\n")[0].split()) in " ".join(plain.split())


def helps(
    every: Sequence[Sequence[str]], mode: Mode, settings: Mapping[str, str], folder: Path
) -> Iterator[str]:
    asked = [[*words, "--help"] for words in every]
    if mode.columns is None:
        yield from (said_by(words, mode, settings, folder)[1] for words in asked)
        return
    with Terminal(
        asked[0],
        more=asked[1:],
        environment={**settings, **mode.environment},
        folder=folder,
        columns=mode.columns,
        kind=mode.kind,
    ) as terminal:
        assert terminal.end() == 0
        yield from terminal.said.split(f"{MARK}\n")


#: Each command with words that give it something to do, in an order in which that works; and the
#: exit code. What is not listed here is listed below.
STORY: Sequence[tuple[str, int]] = (
    ("init new --sandbox --name News --sender-email news@example.org", 0),
    ("settings", 0),
    ("db upgrade", 0),
    ("topic create engineering", 0),
    ("topic list", 0),
    ("topic change engineering --description Tuesdays --place 1", 0),
    ("segment create everybody", 0),
    ("subscribers import people.csv --confirmed --topic engineering", 0),
    ("segment list", 0),
    ("segment count everybody", 0),
    ("segment show everybody", 0),
    ("segment index plan", 0),
    ("issue import digest.txt -o digest.md", 0),
    ("issue save issue.md", 0),
    ("issue list", 0),
    ("issue show issue", 0),
    ("issue review issue", 0),
    ("issue return issue --note again", 0),
    ("issue review issue", 0),
    ("issue approve issue --revision 1", 0),
    ("issue history issue", 0),
    ("issue archive issue --on", 0),
    ("issue test issue.md --to alice@example.org", 0),
    ("render issue.md --out preview", 0),
    ("check issue.md --segment everybody", 0),
    ("doctor", 1),
    (f"send issue --segment everybody --at {FAR}", 0),
    ("sends", 0),
    ("sends pace 1 --per-hour 10", 0),
    ("sends pause 1", 0),
    ("sends continue 1", 2),
    ("sends resume 1", 0),
    ("sends cancel 1", 0),
    ("sends retry 1", 3),
    ("send digest.md --segment everybody", 0),
    ("sends show 2", 0),
    ("sends show 2 --recipients", 0),
    ("sends continue 2", 3),
    ("sends resolve 2 --batch 1 --sent", 2),
    ("sends test 2", 2),
    ("sends winner 2 B", 2),
    ("schedule create daily --series letters --when 'daily 07:00' --segment everybody", 0),
    ("schedule list", 0),
    ("schedule show daily", 0),
    ("schedule next daily", 0),
    ("schedule change daily --when 'daily 08:00'", 0),
    ("schedule skip daily", 0),
    ("schedule pause daily", 0),
    ("schedule resume daily", 0),
    ("segment delete everybody", 2),
    ("schedule delete daily", 0),
    ("segment delete everybody", 0),
    ("departures", 0),
    ("suppressions lift alice@example.org --reason asked", 3),
    ("stats show 2", 0),
    ("stats recipients 2 --not-opened", 0),
    ("stats recipients 2 --clicked --json", 0),
    ("stats recipients 2", 2),
    ("stats verify", 0),
    ("alerts backtest", 0),
    ("reconcile", 0),
    ("subscribers export people.jsonl", 0),
    ("subscribers data alice@example.org", 0),
    ("subscribers erase alice@example.org --yes", 0),
    ("user create owner@example.org --role owner", 0),
    ("user create bob@example.org --role viewer", 0),
    ("user list", 0),
    ("user notify owner@example.org", 0),
    ("user password bob@example.org", 0),
    ("user role bob@example.org editor", 0),
    ("user reset-factor bob@example.org", 0),
    ("user remove bob@example.org", 0),
    ("user log", 0),
    ("webhooks create https://hooks.example.org/x --event send.finished", 0),
    ("webhooks change 1 --description chat", 0),
    ("webhooks list", 0),
    ("webhooks test 1", 0),
    ("webhooks deliveries 1", 0),
    ("webhooks resend 99", 2),
    ("webhooks rotate 1", 0),
    ("webhooks disable 1", 0),
    ("webhooks enable 1", 0),
    ("webhooks delete 1", 0),
    ("db prune", 0),
    ("backup kept", 0),
    ("restore none", 2),
    ("db copy --to sqlite:///other.db", 0),
)
#: Commands that run until they are told to stop, and what they say once they are ready.
STAYING = {"serve --port 0": "newsletter is at", "worker": "worker", "sandbox --port 0": "mailbox:"}
#: It has a test of its own.
ALONE = {"demo"}


def not_told() -> list[str]:
    """Commands that stand in none of these lists: a new one is tried by itself, with no words."""
    told = {
        " ".join(words.split()[:length])
        for words in (*(words for words, _ in STORY), *STAYING, *ALONE)
        for length in range(1, 4)
    }
    return sorted({" ".join(words) for words in commands()} - told)


def files_of_the_story(folder: Path) -> None:
    (folder / "issue.md").write_text(ISSUE)
    (folder / "digest.txt").write_text(SEED.read_text())
    (folder / "people.csv").write_text(
        "email,name,plan\n"
        + "".join(
            f"{name}@example.org,{name.capitalize()},pro\n" for name in ("alice", "bob", "charlie")
        )
    )


@pytest.mark.slow
def test_what_is_asked_for_as_json_is_json(settings: dict[str, str], tmp_path: Path) -> None:
    files_of_the_story(tmp_path)
    have_it = {words for words in commands(groups=True) if "--json" in option_names(words)}
    assert len(have_it) > 15
    told = set[tuple[str, ...]]()
    for words, expected in STORY:
        asked = shlex.split(words)
        own = max((one for one in have_it if one == tuple(asked[: len(one)])), key=len, default=())
        is_group = tuple(asked[: len(own) + 1]) in commands(groups=True) and len(asked) > len(own)
        as_json = bool(own) and not is_group
        done = command(
            [*asked, "--json"] if as_json else asked, environment=settings, folder=tmp_path
        )
        assert done.returncode == expected, (words, done)
        if as_json:
            told.add(own)
            for line in done.stdout.splitlines():
                assert isinstance(json.loads(line), dict), (words, line)
    assert have_it - told == set()


def option_names(words: Sequence[str]) -> set[str]:
    found = typer.main.get_command(application())
    for word in words:
        found = found.commands[word]  # type: ignore[attr-defined]
    return {name for one in found.params for name in one.opts}


@pytest.mark.slow
def test_every_command_can_be_read(mode: Mode, settings: dict[str, str], tmp_path: Path) -> None:
    files_of_the_story(tmp_path)
    for words, expected in (*STORY, *((words, None) for words in not_told())):
        code, said = said_by(shlex.split(words), mode, settings, tmp_path)
        assert code in ({0, 1, 2, 3} if expected is None else {expected}), (words, said)
        check_looks(said, mode, words.split())


@pytest.mark.slow
@pytest.mark.parametrize("words", STAYING)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_stays_ends_when_it_is_told_to(
    words: str, number: signal.Signals, settings: dict[str, str], tmp_path: Path
) -> None:
    left = tmp_path / "temporary"
    left.mkdir()
    told = settings | {"TMPDIR": str(left)}
    with Terminal(words.split(), environment=told, folder=tmp_path, columns=40) as terminal:
        # At the moment when it says that it is ready, which is when a signal finds it least so.
        terminal.wait_for(STAYING[words])
        terminal.signal(number)
        assert terminal.end() == 0, terminal.said
        assert "Traceback" not in terminal.said
    assert list(left.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", [MODES["wide"], MODES["narrow"]], ids=["wide", "narrow"])
def test_the_demo_ends_well_on_a_terminal(mode: Mode, tmp_path: Path) -> None:
    words = ["demo", "--once"]
    with Terminal(
        words,
        environment={"PATH": os.environ["PATH"]},
        folder=tmp_path,
        columns=mode.columns or 80,
    ) as terminal:
        assert terminal.end(170) == 0, terminal.said
        assert "Everything adds up" in terminal.words
        check_looks(terminal.said, mode, words)
