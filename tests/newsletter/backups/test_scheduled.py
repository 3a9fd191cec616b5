"""The backups that the service makes: when due, with a program afterwards, and what failures do."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from newsletter.accounts.models import OperatorMessage
from newsletter.backups.scheduled import ScheduledBackups, run_hook
from newsletter.backups.take import latest
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.errors import MachineError, SettingsError
from newsletter.settings.load import load

pytestmark = pytest.mark.usefixtures("postgresql_tools")

NOW = datetime(2026, 12, 1, 7, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def never() -> bool:
    return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def scheduled(container: Container, folder: Path) -> Callable[..., ScheduledBackups]:
    def make(*hook: str, keep: int = 7) -> ScheduledBackups:
        return ScheduledBackups(
            container.database, folder, container.uploads, every=DAY, keep=keep, hook=hook
        )

    return make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("newsletter-*"))


def messages(container: Container) -> list[str]:
    with reading(container.database) as session:
        return [one.detail for one in session.scalars(select(OperatorMessage))]


def test_a_backup_is_made_when_the_latest_is_too_old(
    scheduled: Callable[..., ScheduledBackups], folder: Path
) -> None:
    for hours in (0, 1, 23, 24, 25, 47, 48, 72):
        # Each time another process: the folder says what was made.
        scheduled(keep=3).run_if_due(NOW + timedelta(hours=hours), never)
    assert names(folder) == [f"newsletter-2026120{day}T070000Z" for day in (2, 3, 4)]


def test_a_clock_that_was_set_back_makes_backups_again(
    scheduled: Callable[..., ScheduledBackups], folder: Path
) -> None:
    one = scheduled()
    one.run_if_due(NOW + 900 * DAY, never)
    one.run_if_due(NOW, never)
    assert latest(folder, now=NOW) == NOW


def test_the_program_gets_the_path_of_the_backup(
    scheduled: Callable[..., ScheduledBackups], folder: Path, tmp_path: Path
) -> None:
    note = tmp_path / "note; rm -rf x"
    program = "import sys, json; open(sys.argv[1], 'w').write(json.dumps(sys.argv[2:]))"
    scheduled("python3", "-c", program, str(note), "$HOME").run_if_due(NOW, never)
    assert json.loads(note.read_text()) == ["$HOME", str(folder / names(folder)[0])]


def test_a_program_that_fails_is_reported_and_the_backup_stays(
    scheduled: Callable[..., ScheduledBackups],
    folder: Path,
    container: Container,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = scheduled("sh", "-c", "echo first >&2; echo no such bucket >&2; exit 3")
    one.run_if_due(NOW, never)
    one.run_if_due(NOW + timedelta(hours=1), never)
    assert len(names(folder)) == 1
    (said,) = messages(container)
    assert "exit code 3: no such bucket" in said
    assert names(folder)[0] in said
    assert "exit code 3" in caplog.text
    scheduled("/no/such/program").run_if_due(NOW + DAY, never)
    assert "cannot be started: No such file" in messages(container)[1]


def test_a_program_ends_with_the_service(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(MachineError):
        run_hook(["sh", "-c", "exec sleep 60"], tmp_path, lambda: True)
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_program_that_will_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(MachineError, match="exit code -9"):
        run_hook(["sh", "-c", "trap '' TERM; sleep 61 & wait; sleep 62"], tmp_path, lambda: True)
    assert time.monotonic() - began < 60


def test_a_failure_is_reported_once_a_day_and_tried_again_within_an_hour(
    scheduled: Callable[..., ScheduledBackups], folder: Path, container: Container
) -> None:
    folder.write_text("not a folder")
    one = scheduled()
    one.run_if_due(NOW, never)
    one.run_if_due(NOW + timedelta(hours=2), never)
    (said,) = messages(container)
    assert "No backup was made" in said
    folder.unlink()
    one.run_if_due(NOW + timedelta(hours=2, minutes=59), never)
    assert not folder.exists()
    one.run_if_due(NOW + timedelta(hours=3), never)
    assert len(names(folder)) == 1


def test_a_backup_that_is_stopped_is_no_failure(
    scheduled: Callable[..., ScheduledBackups], folder: Path, container: Container
) -> None:
    scheduled().run_if_due(NOW, lambda: True)
    assert names(folder) == []
    assert messages(container) == []


def test_the_clock_runs_it_as_the_settings_say(
    environment: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"backup\.folder is empty"):
        load(environment | {"NEWSLETTER_BACKUP__EVERY": "24h"})
    parts = Container(load(environment))
    assert parts.task_context.back_up is None
    parts.database.dispose()
    wanted = {"NEWSLETTER_BACKUP__EVERY": "24h", "NEWSLETTER_BACKUP__FOLDER": str(folder)}
    parts = Container(load(environment | wanted))
    assert parts.task_context.back_up is not None
    parts.task_context.back_up(NOW, never)
    parts.database.dispose()
    assert names(folder) == ["newsletter-20261201T070000Z"]
