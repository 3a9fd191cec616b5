"""One world for one round: database, sandbox behind its relay, processes, people, a send."""

import json
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Engine, insert, select

from newsletter.accounts.audit import Actor
from newsletter.cli.content.issues import read_and_render
from newsletter.container import Container
from newsletter.db.engine import open_database, reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import read_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.scheduling import schedules
from newsletter.scheduling.models import ScheduleRun
from newsletter.scheduling.schedules import ScheduleOptions
from newsletter.sending.models import ProviderBackoff
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.recovery.departure_log import DepartureLogFile
from newsletter.settings.load import load
from newsletter.settings.sections import Sending
from subscribers.consent import suppression
from subscribers.email_address import hash_address, parse
from subscribers.models import Subscriber, SuppressionReason
from subscribers.segments import store as segment_store
from tests import postgresql_tools
from tests.chaos import books as ledger
from tests.chaos.databases import Database
from tests.chaos.launch import Launcher, Running, until
from tests.chaos.relay import PUZZLE, Relay

ISSUE = """---
subject: Hello {{ name | default("reader") }}
slug: chaos
---

Good day, {{ name | default("reader") }}.
"""
#: One in so many has an address that the provider refuses by name, or without one.
_REFUSED, _PUZZLING = 97, 149
#: Seconds that one request may take. Leases are made of it: see dispatch.py.
TIMEOUT: Final = 2
#: When every process is dead, the next one lives this much later: all leases have ended,
#: and so have the waits between two tries.
LATER: Final = 900.0
_LOG_FOLDER = "departures"
_KEY = "a key of 32 characters and more for the chaos"


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a world is."""

    people: int
    batch_size: int = 10
    concurrency: int = 2
    #: Whether some addresses are refused.
    refusals: bool = True


class World:
    """Everything of one round; what it started ends with it."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        plan: Plan,
        *,
        fork: bool,
        elsewhere: Callable[[], Database] | None = None,
    ) -> None:
        self.folder, self.database, self.plan = folder, database, plan
        #: Makes a database of the other kind.
        self.elsewhere = elsewhere
        self._launcher = Launcher(folder, fork=fork)
        self.relay = Relay()
        self.relay.posted.address = self._somebody
        self.relay.patience = 1.5 * TIMEOUT
        self.processes: list[Running] = []
        self.kills = 0
        #: Why the send paused itself, each time.
        self.pauses: list[str] = []
        #: Whether a database was set back behind events that it had.
        self.events_were_lost = False
        #: Seconds by which new processes are ahead of us.
        self.clock = 0.0
        self.send = 1
        self.audience = ledger.Audience()
        self.environment = self._environment()
        self.issue = folder / "issue.md"
        self.issue.write_text(ISSUE)
        self.engine: Engine = open_database(database.url)
        # Two threads read and write here, and both let go of all connections: one that is in
        # use then would outlive the pool that it is to be given back to.
        self._connected = threading.Lock()
        # Whoever leaves does so in this process: it remembers, as every process does.
        self._log_file = DepartureLogFile(folder / _LOG_FOLDER)
        self._log_file.follow(self.engine)

    def _environment(self) -> dict[str, str]:
        told = {
            "PATH": postgresql_tools.path(),
            "NEWSLETTER_DATABASE_URL": self.database.url,
            "NEWSLETTER_SITE__BASE_URL": "https://news.example",
            "NEWSLETTER_SENDER__EMAIL": "news@example.org",
            "NEWSLETTER_SENDGRID__HOST": self.relay.url,
            "NEWSLETTER_SENDGRID__API_KEY": "SG.chaos",
            "NEWSLETTER_SENDGRID__TIMEOUT": f"{TIMEOUT}s",
            "NEWSLETTER_LINKS__KEYS": _KEY,
            "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": _KEY,
            "NEWSLETTER_SENDING__BATCH_SIZE": str(self.plan.batch_size),
            "NEWSLETTER_SENDING__CONCURRENCY": str(self.plan.concurrency),
            "NEWSLETTER_SENDING__UNCERTAIN_POLICY": "hold",
        }
        if has_log_file():
            told["NEWSLETTER_SENDING__DEPARTURE_LOG"] = str(self.folder / _LOG_FOLDER)
        return told

    def __enter__(self) -> Self:
        sandbox = self._launcher.start(
            "sandbox", "--port", "0", "--key", "SG.chaos",
            "--webhook", f"{self.relay.url}/events",
            "--database", str(self.folder / "mailbox.db"), environment={},
        )  # fmt: skip
        until(lambda: "PUBLIC_KEYS=" in sandbox.said or not sandbox.alive, seconds=60,
              what=lambda: f"the sandbox does not start\n{sandbox.said}")  # fmt: skip
        told = dict(
            line.split("=", 1) for line in sandbox.said.splitlines() if line.startswith("NEWS")
        )
        self.relay.upstream = told["NEWSLETTER_SENDGRID__HOST"]
        name = "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS"
        self.environment[name] = told[name]
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._launcher.close()
        self.relay.close()
        self._log_file.unfollow()
        self._log_file.close()
        self.engine.dispose()
        self.database.close()

    # People and the send

    def populate(self) -> None:
        """Write the people, and a segment of all of them."""
        now = datetime.now(UTC)
        rows = []
        key = Container(load(self.environment)).address_key
        for n in range(1, self.plan.people + 1):
            email = self._address(n)
            hashed = (
                hash_address(key, parse(email))
                if "." in email.partition("@")[2]
                else sha256(email.encode()).digest()
            )
            rows.append(
                {
                    "id": n,
                    "email": email,
                    "address_hash": hashed,
                    "name": f"Reader {n}",
                    "attributes": {},
                    "source": "chaos",
                    "created_at": now,
                    "confirmed_at": now,
                }
            )
        with transaction(self.engine) as session:
            session.execute(insert(table_of(Subscriber)), rows)
            segment_store.save(session, "everybody", "", now=now)
        self.audience.meant.update(range(1, self.plan.people + 1))

    def _address(self, number: int) -> str:
        if self.plan.refusals and number % _REFUSED == 0:
            return f"reader{number}@nodot"
        if self.plan.refusals and number % _PUZZLING == 0:
            return f"{PUZZLE}{number}@example.org"
        return f"reader{number}@example.org"

    def leave(self, people: Sequence[int]) -> None:
        """These unsubscribe: from now on nothing may leave for them that has not left."""
        self.audience.left.update(people)
        now, left = datetime.now(UTC), SuppressionReason.UNSUBSCRIBED
        with self._connected:
            with transaction(self.engine) as session:
                suppression.add(session, people, left, at=now, evidence="left in a storm")
            # The weather goes on while others wait for everybody to be gone from the database.
            self.engine.dispose()

    def schedule(self, *, after: float = 0.0) -> None:
        """Make the send, due in so many seconds."""
        parts = Container(load(self.environment))
        draft, rendered = read_and_render(parts, self.issue)
        now = datetime.now(UTC)
        with transaction(self.engine) as session:
            self.send = send_lifecycle.create(
                session,
                draft,
                rendered,
                ["everybody"],
                by=Actor(None, "operator"),
                at=now + timedelta(seconds=after),
                now=now,
                approved_by=COMMAND_LINE,
            ).id
        parts.database.dispose()

    def hand_to_schedule(self) -> None:
        """Approve the issue, and make a schedule by which it is due now."""
        draft, now = read_issue(self.issue), datetime.now(UTC)
        wanted = ScheduleOptions(
            "chaos", draft.series, f"daily {now:%H:%M}", "UTC", segments=["everybody"]
        )
        with transaction(self.engine) as session:
            store.save(session, draft, by=COMMAND_LINE, now=now)
            approval.request(session, draft.slug, by=COMMAND_LINE, now=now)
            approval.approve(session, draft.slug, revision=1, by=COMMAND_LINE, now=now)
            schedules.create(session, wanted, by=COMMAND_LINE, now=now - timedelta(minutes=1))

    def until_made(self) -> None:
        """Wait for the schedule to make the send."""
        until(self.find_send, seconds=60, what="the schedule makes no send", pause=0.05)

    def until_fired(self) -> bool:
        """Wait for the schedule to be dealt with; whether it made a send."""

        def fired() -> bool:
            with self._connected, reading(self.engine) as session:
                return session.scalar(select(table_of(ScheduleRun).c.outcome)) is not None

        until(fired, seconds=90, what="the schedule is not dealt with", pause=0.05)
        return self.find_send()

    def forgotten_doubts(self) -> dict[int, bool]:
        """Batch of the send that was forgotten, left without an answer → whether the sandbox took
        it."""
        with self._connected:
            doubtful = ledger.forgotten_doubts(self.engine)
        taken = self.taken()
        has = {batch: {taken[one] > 0 for one in people} for batch, people in doubtful.items()}
        assert all(len(one) == 1 for one in has.values()), f"a batch was taken in part: {has}"
        return {batch: one == {True} for batch, one in has.items()}

    def find_send(self) -> bool:
        """Whether somebody else made the send; from now on it is the one that is looked at."""
        with self._connected:
            self.send = ledger.latest(self.engine)
        return self.send != 0

    # Processes

    def start(
        self, command: str = "serve", *, worse: Sequence[str] = (), wait: bool = True
    ) -> Running:
        """Start a process of the service beside those that run; returns when it is up."""
        words = [command, "--port", "0"] if command == "serve" else [command]
        options = [*worse, *(["--clock", str(self.clock)] if self.clock else [])]
        process = self._launcher.start(*words, environment=self.environment, worse=options)
        self.processes.append(process)
        if wait:
            self.up()
        return process

    def up(self) -> None:
        """Return when every process that serves listens, or has ended."""
        for process in self.processes:
            if process.words[0] == "serve":
                until(partial(_listens, process), seconds=60, what=f"no start: {process.log}")

    @property
    def helper(self) -> str:
        """What a further process runs: a worker where there is such a command, else a service."""
        return "worker" if has_worker() else "serve"

    def begin(self, *words: str, worse: Sequence[str] = ()) -> Running:
        """Start any other command."""
        return self._launcher.start(*words, environment=self.environment, worse=worse)

    def command(self, *words: str) -> str:
        """Run an operator's command to its end."""
        return self._launcher.run(*words, environment=self.environment)

    def kill(self, process: Running) -> None:
        """SIGKILL."""
        if process.alive:
            self.kills += 1
            process.kill()
        self.processes.remove(process)

    def kill_all(self) -> None:
        """SIGKILL for every process of the service; return when nothing of them goes on."""
        for process in list(self.processes):
            self.kill(process)
        self.at_rest()

    def end(self, process: Running) -> None:
        """SIGTERM, and wait for the orderly end."""
        process.terminate()
        code = process.wait(60)
        assert code in {0, -15}, f"an orderly end, with code {code}\n{process.said[-2000:]}"
        self.processes.remove(process)

    def end_all(self) -> None:
        """SIGTERM for every process, and wait."""
        for process in list(self.processes):
            self.end(process)
        self.at_rest()

    def snapshot(self) -> None:
        """Keep the database as it is; PostgreSQL wants nobody connected."""
        if self.database.kind == "postgresql":
            self.at_rest()
        self.database.snapshot()

    def restore(self) -> None:
        """Set the database back to the snapshot. Every process is dead."""
        self.at_rest()
        self.database.restore()
        # What the service was told since, it has forgotten, and nobody tells it again.
        self.events_were_lost = self.relay.posted.gate.is_set()

    def backup(self) -> str:
        """Make a backup by the command, whatever runs; its folder."""
        return str(json.loads(self.command("backup", "backups", "--json"))["backup"])

    def restore_backup(self, backup: str) -> None:
        """Restore a backup by the command, into an empty database. Every process is dead."""
        self.at_rest()
        self.database.erase()
        self.command("restore", backup)
        self.events_were_lost = self.relay.posted.gate.is_set()

    def move(self, target: Database, kill_after: Sequence[float]) -> None:
        """Copy the database into another kind by the command, killed each time after so many
        seconds; then work with the copy. No process runs."""
        target.erase()
        words = ("db", "copy", "--to", target.url)
        for seconds in kill_after:
            copying = self.begin(*words)
            time.sleep(seconds)
            if copying.alive:
                self.kills += 1
                copying.kill()
        last = self.begin(*words)
        # A kill may have come after the last commit.
        assert last.wait(120) == 0 or "or a copy of it" in last.said, last.said
        self.at_rest()
        self.database.close()
        self._log_file.unfollow()
        self.database, self.engine = target, open_database(target.url)
        self._log_file.follow(self.engine)
        self.environment["NEWSLETTER_DATABASE_URL"] = target.url

    def at_rest(self) -> None:
        """Nothing of a process that ended is on the wire or in the database any more."""
        self.wire_is_idle()
        with self._connected:
            self.engine.dispose()
        self.database.at_rest()

    def wire_is_idle(self) -> None:
        """Whatever was to reach the sandbox has reached it."""
        until(lambda: self.relay.idle, seconds=90, what="the sandbox does not answer")

    def _somebody(self) -> str | None:
        up = [process.url for process in list(self.processes) if process.url and process.alive]
        return random.choice(up) if up else None

    # Looking

    def books(self) -> ledger.Books:
        """The ledger of the send."""
        with self._connected:
            return ledger.read(self.engine, self.send)

    def taken(self) -> Counter[int]:
        """How often the sandbox took each person of this send."""
        url = f"{self.relay.upstream}/sandbox/accepted"
        with urllib.request.urlopen(url, timeout=60) as lines:
            args = [json.loads(line)["custom_args"] for line in lines]
        assert {int(one["nl_send"]) for one in args} <= {self.send}
        return Counter(int(one["nl_subscriber"]) for one in args)

    def probes(self) -> int:
        """How many requests have been probes."""
        with self._connected, reading(self.engine) as session:
            return session.scalar(select(table_of(ProviderBackoff).c.probes)) or 0

    def left_without(self) -> set[int]:
        """Who has left and does not have it."""
        taken = self.taken()
        return {person for person in self.audience.left if not taken[person]}

    def compare(self, *, final: bool = False) -> ledger.Finding:
        """The ledger against the sandbox; no process may run."""
        return ledger.compare(self.books(), self.taken(), self.audience, final=final)

    def events_are_in(self) -> bool:
        """Whether the service has every event there is."""
        with urllib.request.urlopen(f"{self.relay.upstream}/sandbox/summary", timeout=60) as said:
            summary: dict[str, Any] = json.loads(said.read())
        return summary["pending_events"] == 0 and self.relay.posted.empty

    def faults(self, **wanted: object) -> None:
        """Switch the sandbox's faults."""
        body = json.dumps(wanted).encode()
        request = urllib.request.Request(f"{self.relay.upstream}/sandbox/faults", body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    def until(self, done: Callable[[ledger.Books], bool], *, seconds: float, what: str) -> None:
        """Wait for the ledger to say something."""

        def told() -> str:
            now = self.books()
            states = dict(Counter(now.batches.values()))
            tails = "\n".join(process.said[-1500:] for process in self.processes)
            return f"{what}: not within {seconds:.0f} s; send {now.send}, batches {states}\n{tails}"

        until(lambda: done(self.books()), seconds=seconds, what=told, pause=0.05)


def has_log_file() -> bool:
    """Whether this version keeps a departure log beside the database."""
    return (
        "departure_log" in Sending.model_fields
        and find_spec("newsletter.sending.recovery.departure_log") is not None
    )


def _listens(process: Running) -> bool:
    return process.url != "" or not process.alive


@cache
def has_worker() -> bool:
    """Whether this version has a command for processes that only send."""
    return find_spec("newsletter.cli.processes.worker") is not None
