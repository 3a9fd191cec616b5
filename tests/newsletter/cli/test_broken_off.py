"""A send that its command leaves in the middle: it says by what it goes on, and that does."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import pytest
from sqlalchemy import text

from newsletter.accounts.audit import Actor
from newsletter.cli.actor import Stop
from newsletter.cli.content.issues import rendered_by
from newsletter.cli.sending import send_progress
from newsletter.container import Container
from newsletter.db.engine import open_database, transaction
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.states import SendState
from newsletter.settings.load import load
from subscribers.segments import store as segment_store
from tests.forking import command
from tests.newsletter.cli.test_commands import ISSUE
from tests.newsletter.cli.test_terminals import KEY, MODES, Mode, check_looks, said_by, settings
from tests.pseudo_terminal import Terminal

__all__ = ["settings"]
PEOPLE = 3000


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(api_keys=frozenset({KEY}))) as running:
        yield running


@pytest.fixture
def folder(settings: dict[str, str], tmp_path: Path) -> Path:
    """With an issue, and a database of many readers."""
    (tmp_path / "issue.md").write_text(ISSUE)
    done = command(["segment", "create", "all"], environment=settings, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    engine = open_database(f"sqlite:///{tmp_path / 'data' / 'newsletter.db'}")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO subscriber (email, address_hash, name, attributes, source,"
                " created_at, confirmed_at) VALUES (:email, :hash, '', '{}', '',"
                " '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000')"
            ),
            [
                # The departure log tells people apart by the beginning of their hash.
                {
                    "email": f"ok+{n}@example.org",
                    "hash": blake2b(b"%d" % n, digest_size=16).digest(),
                }
                for n in range(PEOPLE)
            ],
        )
    engine.dispose()
    return tmp_path


def taken(sandbox: RunningSandbox) -> Counter[str]:
    return Counter(mail.email for mail in sandbox.store.accepted(0))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_send_without_the_service_reaches_everybody(
    mode: Mode, sandbox: RunningSandbox, settings: dict[str, str], folder: Path
) -> None:
    words = ["send", "issue.md", "--segment", "all"]
    code, said = said_by(words, mode, settings, folder)
    assert code == 0, said
    check_looks(said, mode, words)
    assert len(taken(sandbox)) == PEOPLE
    assert set(taken(sandbox).values()) == {1}


BATCHES = {"NEWSLETTER_SENDING__BATCH_SIZE": "50", "NEWSLETTER_SENDING__CONCURRENCY": "2"}
SEND = ("send", "issue.md", "--segment", "all")


@pytest.fixture
def slow(sandbox: RunningSandbox, settings: dict[str, str]) -> dict[str, str]:
    """Settings with which a send takes some seconds, in many requests."""
    sandbox.set_faults(slow={"probability": 1, "seconds": 0.1})
    return settings | BATCHES


def begun(sandbox: RunningSandbox, terminal: Terminal) -> None:
    deadline = time.monotonic() + 60
    while not 0 < len(taken(sandbox)) < PEOPLE / 2:
        assert time.monotonic() < deadline, terminal.said
        time.sleep(0.02)


def continued(sandbox: RunningSandbox, settings: dict[str, str], folder: Path) -> str:
    """`newsletter sends continue`, and everybody has one copy."""
    sandbox.set_faults()
    done = command(["sends", "continue", "1"], environment=settings, folder=folder, seconds=120)
    assert done.returncode == 0, done.stderr
    assert len(taken(sandbox)) == PEOPLE
    assert set(taken(sandbox).values()) == {1}
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_requests_end_and_says_how_it_goes_on(
    number: signal.Signals, sandbox: RunningSandbox, slow: dict[str, str], folder: Path
) -> None:
    with Terminal(SEND, environment=slow, folder=folder, columns=40) as terminal:
        begun(sandbox, terminal)
        terminal.signal(number)
        assert terminal.end() == 128 + number
        assert "Traceback" not in terminal.said
        assert "newsletter serve" in terminal.words
        assert "newsletter sends continue 1" in terminal.words
        assert "is not finished" in terminal.words
    shown = command(["sends", "show", "1"], environment=slow, folder=folder).stdout
    assert "uncertain" not in shown
    assert "none: newsletter serve, or newsletter sends continue 1" in shown
    assert "sent" in continued(sandbox, slow, folder)
    again = command(["sends", "continue", "1"], environment=slow, folder=folder)
    assert again.returncode == 3


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_it_orderly(
    sandbox: RunningSandbox, slow: dict[str, str], folder: Path
) -> None:
    with Terminal(SEND, environment=slow, folder=folder) as terminal:
        begun(sandbox, terminal)
        terminal.hang_up()
        terminal.process.join(60)
        assert terminal.process.exitcode == 128 + signal.SIGHUP
    assert (
        "uncertain" not in command(["sends", "show", "1"], environment=slow, folder=folder).stdout
    )
    continued(sandbox, slow, folder)


@pytest.mark.slow
def test_the_service_goes_on_with_it(
    sandbox: RunningSandbox, slow: dict[str, str], folder: Path
) -> None:
    with Terminal(SEND, environment=slow, folder=folder) as terminal:
        begun(sandbox, terminal)
        terminal.signal(signal.SIGTERM)
        terminal.end()
    sandbox.set_faults()
    with Terminal(["serve", "--port", "0"], environment=slow, folder=folder) as service:
        deadline = time.monotonic() + 60
        while len(taken(sandbox)) < PEOPLE:
            assert time.monotonic() < deadline, service.said
            time.sleep(0.1)
        service.signal(signal.SIGHUP)
        service.end()
    assert set(taken(sandbox).values()) == {1}


@pytest.mark.slow
def test_what_a_killed_command_held_is_taken_back(
    sandbox: RunningSandbox, slow: dict[str, str], folder: Path
) -> None:
    with Terminal(SEND, environment=slow, folder=folder) as terminal:
        begun(sandbox, terminal)
        terminal.signal(signal.SIGKILL)
        assert terminal.end() == -signal.SIGKILL
    sandbox.set_faults()
    done = command(["sends", "continue", "1"], environment=slow, folder=folder, seconds=120)
    # What was in flight is in doubt: that is said, and nobody is sent a second copy.
    assert done.returncode in {0, 4}, done.stderr
    assert set(taken(sandbox).values()) == {1}
    doubtful = PEOPLE - len(taken(sandbox))
    assert doubtful <= 2 * 50
    if doubtful:
        assert done.returncode == 4
        assert "did not confirm" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", ["resume", "pause", "cancel"])
def test_what_happens_to_a_send_meanwhile_counts(
    words: str, sandbox: RunningSandbox, slow: dict[str, str], folder: Path
) -> None:
    """A send that another terminal pauses or cancels rests, and the command says so."""
    with Terminal(SEND, environment=slow, folder=folder) as terminal:
        begun(sandbox, terminal)
        done = command(["sends", words, "1"], environment=slow, folder=folder)
        assert (done.returncode == 0) is (words != "resume"), done.stderr
        code = terminal.end()
        assert code == {"resume": 0, "pause": 4, "cancel": 4}[words], terminal.said
        assert "Traceback" not in terminal.said


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_mistake_of_ours_says_how_it_goes_on(
    environment: dict[str, str],
    sandbox: RunningSandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cast: dict[str, int],
) -> None:
    environment |= {
        "NEWSLETTER_SENDGRID__HOST": sandbox.url,
        "NEWSLETTER_SENDING__BATCH_SIZE": "1",
        "NEWSLETTER_SENDING__CONCURRENCY": "1",
    }
    sandbox.set_faults(slow={"probability": 1, "seconds": 0.5})
    parts, now = Container(load(environment)), datetime.now(UTC)
    draft = parse_issue(ISSUE, name="issue.md")
    with transaction(parts.database) as session:
        segment_store.save(session, "all", "", now=now)
        made = send_lifecycle.create(
            session,
            draft,
            rendered_by(parts, draft),
            ["all"],
            by=Actor(None, "operator"),
            at=now,
            now=now,
            approved_by=COMMAND_LINE,
        )

    def broken(*_: object, **__: object) -> None:
        raise TypeError("unsupported format string passed to NoneType.__format__")

    with monkeypatch.context() as patched:
        patched.setattr(send_progress, "_is_only_uncertain_left", broken)
        # Its workers end, so that the command does.
        with pytest.raises(TypeError):
            send_progress.run_to_rest(parts, made.id, Stop())
    said = capsys.readouterr().err
    assert f"newsletter sends continue {made.id}" in " ".join(said.split())
    assert send_progress.run_to_rest(parts, made.id, Stop()).send.state == SendState.SENT
    assert set(taken(sandbox).values()) == {1}
    parts.database.dispose()
