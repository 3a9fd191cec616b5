"""`newsletter demo`: send two real issues to a local mailbox and check every count."""

import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from newsletter.cli.actor import Stop, StoppedError, stopping
from newsletter.cli.content.issues import read_and_render
from newsletter.cli.demo.environment import DemoEnvironment, demo_environment, owner, people
from newsletter.cli.output import err, out
from newsletter.cli.sending.send_progress import watch
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.errors import SendError
from newsletter.issues import store
from newsletter.issues.store import COMMAND_LINE
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.sending.queries.send_status import SendStatus
from newsletter.sending.states import DeliveryState, SendState
from newsletter.settings.load import resource
from newsletter.tracking.stats import counters
from subscribers.consent import suppression

_ENGINEERS, _LEADERS = 2500, 1500
_OWNER = "owner@example.com"
_DIGEST, _LETTER = "engineering-at-scale-2026-03-27.md", "letter-2026-03-28.md"
#: Seconds; longer than the sandbox's slowest event takes.
_PATIENCE = 90.0


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Exit when all events have arrived.")
    ] = False,
) -> None:
    """Send two sample issues to 4,000 sample subscribers on this machine; needs no account."""
    with stopping() as stop, demo_environment(fixed_ports=not once) as demo_run:
        people(demo_run.container, engineers=_ENGINEERS, leaders=_LEADERS)
        err.print(f"{_ENGINEERS + _LEADERS:,} sample subscribers in two segments.\n")
        digest = _play(demo_run, _DIGEST, ["engineers"], stop)
        suppressed = _suppressed(demo_run.container)
        letter = _play(demo_run, _LETTER, ["engineers", "leaders"], stop)
        _print(demo_run.container, digest, letter)
        faults = _faults(demo_run, digest, letter, suppressed)
        for fault in faults:
            err.print(f"[bold red]difference:[/bold red] {escape(fault)}", markup=True)
        if not faults:
            out.print("\nEverything adds up: each planned person got each issue exactly once.\n")
        _show_around(demo_run)
        if not once:
            out.print("\nBoth stay up until Ctrl-C.")
            stop.wait()
            err.print("stopping")
    if faults:
        raise SendError(f"{len(faults)} counts differ")


def _show_around(demo_run: DemoEnvironment) -> None:
    """Print the addresses to open and the password of the console."""
    password = owner(demo_run.container, _OWNER)
    for name, place in (
        ("mailbox", demo_run.sandbox.url),
        ("archive", f"{demo_run.service_url}/archive"),
        ("console", f"{demo_run.service_url}/console/"),
        ("  address", _OWNER),
        ("  password", password),
    ):
        out.print(f"{name:<11}{place}")
    err.print("The demo needs no second factor; by default it is needed (docs/guides/console.md).")


def _play(demo_run: DemoEnvironment, name: str, segment_names: list[str], stop: Stop) -> SendStatus:
    """Send one issue through the scheduler and wait for its last event."""
    draft, rendered = read_and_render(demo_run.container, resource("issues") / name)
    now = datetime.now(UTC)
    with transaction(demo_run.container.database) as session:
        made = send_lifecycle.create(
            session,
            draft,
            rendered,
            segment_names,
            at=now + timedelta(seconds=1),
            now=now,
            by=COMMAND_LINE,
            approved_by=COMMAND_LINE,
        )
        # An issue to segments is not in the archive by default; show it there for the demo.
        store.switch_archive(session, draft.slug, on=True, by=COMMAND_LINE, now=now)
        send_id = made.id
    err.print(f"Send {send_id}: “{draft.title}” to {' and '.join(segment_names)}, in a second.")
    watch(demo_run.container, send_id, stop)
    _await_events(demo_run, stop)
    with reading(demo_run.container.database) as session:
        return send_status.get_status(session, send_id)


def _await_events(demo_run: DemoEnvironment, stop: Stop) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        summary = _sandbox(demo_run, "/sandbox/summary")
        if not summary["pending_events"]:
            return
        if stop.wait(0.2):
            raise StoppedError(stop.signal)
    raise SendError("the events did not all arrive", hint=f"Look at {demo_run.sandbox.url}")


def _sandbox(demo_run: DemoEnvironment, path: str) -> dict[str, int]:
    with urllib.request.urlopen(demo_run.sandbox.url + path, timeout=30) as answer:  # noqa: S310 (loopback)
        summary: dict[str, int] = orjson.loads(answer.read())
        return summary


def _accepted(demo_run: DemoEnvironment) -> Counter[tuple[int, int]]:
    """(send, subscriber) → the number of emails that the provider accepted."""
    url = f"{demo_run.sandbox.url}/sandbox/accepted"
    taken: Counter[tuple[int, int]] = Counter()
    with urllib.request.urlopen(url, timeout=60) as lines:  # noqa: S310 (loopback)
        for line in lines:
            args = orjson.loads(line)["custom_args"]
            taken[int(args["nl_send"]), int(args["nl_subscriber"])] += 1
    return taken


def _suppressed(container: Container) -> dict[int, str]:
    """Subscriber → the reason of the current suppression."""
    with reading(container.database) as session:
        return suppression.reasons(session)


def _faults(
    demo_run: DemoEnvironment, digest: SendStatus, letter: SendStatus, suppressed: dict[int, str]
) -> list[str]:
    """The differences between the counts of the ledger and of the sandbox."""
    faults = []
    taken = _accepted(demo_run)
    for one in (digest, letter):
        send, states = one.send, one.recipients
        handed = send.planned - states.get(DeliveryState.SKIPPED, 0)
        mine = [number for (send_id, _), number in taken.items() if send_id == send.id]
        for holds, words in (
            (send.state == SendState.SENT, f"send {send.id} is {send.state}"),
            (one.adds_up, f"send {send.id} planned {send.planned}, has {states}"),
            (len(mine) == handed, f"send {send.id}: {handed} sent, {len(mine)} accepted"),
            (set(mine) <= {1}, f"send {send.id}: a recipient got it twice"),
            (
                not states.get(DeliveryState.ACCEPTED),
                f"send {send.id}: no event for {states.get(DeliveryState.ACCEPTED)} recipients",
            ),
        ):
            if not holds:
                faults.append(words)
    everybody = letter.send.planned + sum(letter.send.excluded_counts.values())
    if everybody != _ENGINEERS + _LEADERS:
        faults.append(f"the letter counts {everybody} subscribers")
    if letter.send.excluded_counts != dict(Counter(suppressed.values())):
        faults.append(
            f"excluded {letter.send.excluded_counts}, suppressed {Counter(suppressed.values())}"
        )
    if again := [who for who in suppressed if taken[letter.send.id, who]]:
        faults.append(f"{len(again)} suppressed subscribers got the letter")
    return faults


def _print(container: Container, *standings: SendStatus) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for one in standings:
        table.add_column(f"Send {one.send.id}", justify="right")
    with reading(container.database) as session:
        happened = [counters.of_send(session, standing.send.id) for standing in standings]
        total = suppression.count(session)
    reasons = sorted({why for standing in standings for why in standing.send.excluded_counts})
    lines: list[tuple[str, list[int]]] = [
        (
            "subscribers in the segments",
            [s.send.planned + sum(s.send.excluded_counts.values()) for s in standings],
        ),
        *(
            (f"  excluded: {why}", [s.send.excluded_counts.get(why, 0) for s in standings])
            for why in reasons
        ),
        ("planned", [s.send.planned for s in standings]),
        (
            "accepted by the provider",
            [s.send.planned - s.recipients.get("skipped", 0) for s in standings],
        ),
        *((f"  {state}", [s.recipients.get(state, 0) for s in standings]) for state in _FINAL),
        (
            "unsubscribed afterwards",
            [h.get("unsubscribe", 0) + h.get("group_unsubscribe", 0) for h in happened],
        ),
    ]
    for name, numbers in lines:
        table.add_row(name, *(f"{number:,}" for number in numbers))
    table.add_row("seconds", *(f"{_seconds(standing):.2f}" for standing in standings))
    out.print(table)
    out.print(f"\nsuppressed from now on: {total:,} addresses")


_FINAL = ("delivered", "bounced", "dropped", "complained", "skipped")


def _seconds(standing: SendStatus) -> float:
    send = standing.send
    if send.finished_at is None or send.started_at is None:
        return float("nan")
    return (send.finished_at - send.started_at).total_seconds()
