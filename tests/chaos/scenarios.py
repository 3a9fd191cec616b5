"""What is done to a send: each scenario is a storm; what comes after it is the same for all."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from newsletter.sending.states import BatchState
from tests.chaos.launch import Running
from tests.chaos.process import FARTHEST
from tests.chaos.relay import OUTAGES
from tests.chaos.world import LATER, TIMEOUT, World

#: Seconds for a few batches to leave, of which answers are lost for the first few only: each
#: answer that never came doubles the wait for the next probe, up to five minutes.
_STORMY, _LOSES_ANSWERS = 300, 30
#: Crashes in one round at most, and people to a crash: what is then still to be sent is
#: sent in fair weather.
_MOST, _PEOPLE_TO_A_CRASH = 12, 40
#: From so many people on, outages are as long as they may be.
_LARGE = 1000


@dataclass(frozen=True, slots=True)
class Scenario:
    """One storm on one kind of database."""

    name: str
    database: str
    #: Processes that send, at least and at most.
    workers: tuple[int, int]
    play: Callable[[World, random.Random, int], None]
    #: People of a batch, where it matters.
    batch_size: int | None = None
    #: Seconds until everything that the storm put off is surely due.
    later: float = LATER
    needs_log_file: bool = False
    #: Whether a schedule makes the send, and no operator.
    by_schedule: bool = False


def kills(world: World, dice: random.Random, workers: int) -> None:
    """kill -9 at random moments, also while a process starts; another takes its place."""
    team = _start(world, workers)
    with _weather(world, dice):
        while world.books().waiting and world.kills < _most(world):
            time.sleep(dice.uniform(0, 0.8))
            _replace(world, dice, team)
    world.kill_all()


def orderly(world: World, dice: random.Random, workers: int) -> None:
    """SIGTERM at random moments: whoever ends orderly leaves nothing half done."""
    with _weather(world, dice, doubtful=False):
        for _ in range(_most(world)):
            team = _start(world, workers)
            time.sleep(dice.uniform(0, 0.8))
            for process in team:
                process.terminate()
            world.kills += workers
            world.end_all()
            now = world.books()
            left = now.of(BatchState.CLAIMED, BatchState.IN_FLIGHT, BatchState.UNCERTAIN)
            told = [(n, now.batches[n], now.details[n]) for n in left]
            assert not left, f"an orderly end left {told}"
            if not now.waiting:
                break
    world.at_rest()


def control(world: World, dice: random.Random, workers: int) -> None:
    """Pause, resume and perhaps cancel while it runs, and a kill now and then."""
    team = _start(world, workers)
    with _weather(world, dice):
        for _ in range(dice.randint(2, 6)):
            time.sleep(dice.uniform(0, 0.6))
            _command(world, "pause")
            if dice.random() < 0.5:
                _nothing_leaves(world)
            if dice.random() < 0.3:
                _replace(world, dice, team)
            _command(world, "resume")
        if dice.random() < 0.5:
            time.sleep(dice.uniform(0, 0.6))
            _command(world, "cancel")
            # What was under way ends as it ends.
            time.sleep(dice.uniform(0, 2 * TIMEOUT))
    world.kill_all()


def jumps(world: World, dice: random.Random, workers: int) -> None:
    """Every process's wall clock jumps to and fro, each by itself, by up to two hours."""
    team = [
        world.start(worse=["--jumps", str(dice.randrange(10**6))], wait=False)
        for _ in range(workers)
    ]
    world.up()
    # What was put off to another time of day waits for the aftermath.
    ends = time.monotonic() + min(20, world.plan.people / 50)
    with _weather(world, dice):
        while world.books().waiting and time.monotonic() < ends:
            time.sleep(dice.uniform(0.5, 2.0))
            if dice.random() < 0.4:
                _replace(world, dice, team, worse=["--jumps", str(dice.randrange(10**6))])
    world.kill_all()


def restore(world: World, dice: random.Random, workers: int) -> None:
    """Killed, set back to a copy of the database from the midst of the send, started again."""
    _start(world, workers)
    with _weather(world, dice):
        world.until(lambda b: len(b.of(BatchState.ACCEPTED)) > 1, seconds=_STORMY, what="it sends")
        _copy_and_go_on(world, dice, workers)
    world.kill_all()
    world.restore()


def restore_backup(world: World, dice: random.Random, workers: int) -> None:
    """The same by the commands: a backup while all runs, restored into an empty database."""
    _start(world, workers)
    with _weather(world, dice):
        world.until(lambda b: len(b.of(BatchState.ACCEPTED)) > 1, seconds=_STORMY, what="it sends")
        time.sleep(dice.uniform(0, 1.0))
        kept = world.backup()
        time.sleep(dice.uniform(0.2, 2.0))
    world.kill_all()
    world.restore_backup(kept)


def move(world: World, dice: random.Random, workers: int) -> None:
    """Paused in the midst of the send, copied into a database of the other kind by a command that
    is killed again and again, and resumed there."""
    assert world.elsewhere is not None
    _start(world, workers)
    with _weather(world, dice):
        world.until(lambda b: len(b.of(BatchState.ACCEPTED)) > 1, seconds=_STORMY, what="it sends")
        _command(world, "pause")
        world.until(
            lambda b: not b.of(BatchState.CLAIMED, BatchState.IN_FLIGHT),
            seconds=60,
            what="requests end",
        )
        world.end_all()
    world.move(
        world.elsewhere(), kill_after=[dice.uniform(0.5, 2.0) for _ in range(dice.randint(1, 4))]
    )


def restore_early(world: World, dice: random.Random, workers: int) -> None:
    """The same with a copy from before the plan, in which the send only stands on the calendar."""
    world.snapshot()
    _start(world, workers)
    with _weather(world, dice):
        world.until(lambda b: len(b.of(BatchState.ACCEPTED)) > 1, seconds=_STORMY, what="it sends")
        time.sleep(dice.uniform(0, 1.5))
    world.kill_all()
    world.restore()


def outages(world: World, dice: random.Random, workers: int) -> None:
    """At full pace the provider fails for a while, in each way; the send goes on by itself.

    In doubt is what was under way when each outage began, and the probes since. No event
    comes before all has been counted.
    """
    # Whoever is up first would be done before the others are.
    _command(world, "pause")
    team = _start(world, workers)
    world.faults(slow={"probability": 1, "seconds": 0.2})
    longest = 60.0 if world.plan.people >= _LARGE else 2.0
    hands, began = workers * world.plan.concurrency, 0
    for number, outage in enumerate(dice.sample(OUTAGES, len(OUTAGES))):
        world.relay.fail(outage, after=dice.randint(1, 4))
        if number == 0:
            _command(world, "resume")
        world.until(
            # Without batches it was not planned yet.
            lambda b: world.relay.outage != "" or bool(b.batches and not b.waiting),
            # The next probe is at most as far away as the outage was long, or its worker died.
            seconds=60 + 3 * longest,
            what="the send goes on by itself",
        )
        if not world.relay.outage:
            break
        began += 1
        # Short ones as often as long ones.
        lasts = longest ** dice.random()
        if dice.random() < 0.3:
            time.sleep(lasts / 2)
            _replace(world, dice, team)
            lasts /= 2
        time.sleep(lasts)
        world.relay.heal()
        world.leave(dice.sample(range(1, world.plan.people + 1), 2))
    world.relay.heal()
    world.until(
        lambda b: not b.waiting, seconds=60 + 3 * longest, what="the send goes on by itself"
    )
    assert began, "it was over before anything failed"
    now, probes = world.books(), world.probes()
    doubtful = len(now.of(BatchState.UNCERTAIN, BatchState.IN_FLIGHT))
    most = began * hands + probes + world.kills * world.plan.concurrency
    assert now.send in {"sending", "sent"}, f"it is {now.send}: {now.reason}"
    assert doubtful <= most, (
        f"{doubtful} batches in doubt after {began} outages for {hands} hands, {probes} probes, "
        f"{world.kills} kills: {now.details}"
    )
    world.kill_all()


def restore_before_it_was_made(world: World, dice: random.Random, workers: int) -> None:
    """The same with a copy in which the send is not made yet: a schedule is about to make it."""
    world.snapshot()
    _start(world, workers)
    world.until_made()
    with _weather(world, dice):
        world.until(lambda b: len(b.of(BatchState.ACCEPTED)) > 1, seconds=_STORMY, what="it sends")
        time.sleep(dice.uniform(0, 1.5))
    world.kill_all()
    world.restore()
    # The operator settles what left without an answer before anything runs.
    world.command("departures", "compare")
    for batch, has in sorted(world.forgotten_doubts().items()):
        word = "--sent" if has else "--resend"
        world.command("departures", "resolve", "chaos", "--batch", str(batch), word)


SCENARIOS = (
    Scenario("kill", "sqlite", (1, 1), kills),
    Scenario("kill", "postgresql", (2, 4), kills),
    Scenario("orderly end", "sqlite", (1, 1), orderly),
    Scenario("orderly end", "postgresql", (2, 3), orderly),
    Scenario("pause, resume, cancel", "sqlite", (1, 1), control),
    Scenario("pause, resume, cancel", "postgresql", (2, 3), control),
    Scenario("clock jumps", "sqlite", (1, 1), jumps, later=LATER + 2 * FARTHEST),
    Scenario("clock jumps", "postgresql", (2, 3), jumps, later=LATER + 2 * FARTHEST),
    Scenario("outage", "sqlite", (2, 3), outages, batch_size=12),
    Scenario("outage", "postgresql", (2, 3), outages, batch_size=12),
    Scenario("restored copy", "sqlite", (1, 1), restore, needs_log_file=True),
    Scenario("restored copy", "postgresql", (2, 3), restore, needs_log_file=True),
    Scenario("restored backup", "sqlite", (1, 1), restore_backup, needs_log_file=True),
    Scenario("restored backup", "postgresql", (2, 3), restore_backup, needs_log_file=True),
    Scenario("moved", "sqlite", (1, 1), move),
    Scenario("moved", "postgresql", (2, 3), move),
    Scenario("restored early copy", "sqlite", (1, 1), restore_early, needs_log_file=True),
    Scenario("restored early copy", "postgresql", (2, 3), restore_early, needs_log_file=True),
    Scenario(
        "restored copy without the send",
        "sqlite",
        (1, 1),
        restore_before_it_was_made,
        needs_log_file=True,
        by_schedule=True,
    ),
    Scenario(
        "restored copy without the send",
        "postgresql",
        (2, 3),
        restore_before_it_was_made,
        needs_log_file=True,
        by_schedule=True,
    ),
)


def _most(world: World) -> int:
    return min(_MOST, world.plan.people // _PEOPLE_TO_A_CRASH)


def _start(world: World, workers: int) -> list[Running]:
    """So many processes that send: the first serves too, the others as this version can."""
    commands = ["serve", *[world.helper] * (workers - 1)]
    team = [world.start(command, wait=False) for command in commands]
    world.up()
    return team


def _replace(
    world: World, dice: random.Random, team: list[Running], *, worse: list[str] | None = None
) -> None:
    """Kill one of the team; another of its kind comes in its place, and may be killed starting."""
    place = dice.randrange(len(team))
    command = team[place].words[0]
    world.kill(team[place])
    team[place] = world.start(command, worse=worse or [], wait=dice.random() < 0.7)


def _copy_and_go_on(world: World, dice: random.Random, workers: int) -> None:
    time.sleep(dice.uniform(0, 1.0))
    if world.database.kind == "postgresql":
        world.kill_all()
        world.snapshot()
        _start(world, workers)
    else:
        world.snapshot()
    time.sleep(dice.uniform(0.2, 2.0))


def _command(world: World, word: str) -> None:
    """An operator's command; the send may have ended meanwhile, which it then says."""
    said = world.begin("sends", word, str(world.send))
    if said.wait(60) != 0:
        assert "cannot become" in said.said, said.said


def _nothing_leaves(world: World) -> None:
    """Paused: once the requests under way have ended, nothing more is taken."""
    if world.books().send != "paused":
        return
    time.sleep(0.3)
    world.wire_is_idle()
    before = sum(world.taken().values())
    time.sleep(0.5)
    assert sum(world.taken().values()) == before, "something left while the send was paused"


@contextmanager
def _weather(world: World, dice: random.Random, *, doubtful: bool = True) -> Iterator[None]:
    """Faults that change all the time, people who leave meanwhile, and fair weather at the end."""
    # Its own dice: the order in which two threads throw is no part of a seed.
    own, over = random.Random(dice.random()), threading.Event()
    if own.random() < 0.5:
        world.relay.posted.gate.set()

    ends = time.monotonic() + (_LOSES_ANSWERS if doubtful else 0)

    def change() -> None:
        while not over.is_set():
            loses = time.monotonic() < ends
            world.faults(**(_faults(own) if loses else _gentle(own)))
            # Whoever is just connecting is cut off, and cannot know what came of it.
            if loses and own.random() < 0.2:
                world.relay.shut()
            if own.random() < 0.4:
                world.leave(own.sample(range(1, world.plan.people + 1), 3))
            over.wait(own.uniform(0.2, 0.8))
            world.relay.open()

    thread = threading.Thread(target=change, name="weather")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        world.faults()


def _gentle(dice: random.Random) -> dict[str, object]:
    """Faults after which everybody knows what happened."""
    return {
        "rate_limit": {"probability": dice.uniform(0, 0.15), "seconds": 1},
        "slow": {"probability": dice.uniform(0.2, 1), "seconds": dice.uniform(0.05, 0.4)},
        "webhook_duplicates": dice.uniform(0, 1),
        "webhook_new_ids": dice.uniform(0, 0.5),
    }


def _faults(dice: random.Random) -> dict[str, object]:
    """All of them."""
    wanted = _gentle(dice) | {
        kind: dice.uniform(0, 0.25)
        for kind in ("server_error", "error_after_accepting", "accept_then_lose", "refuse")
    }
    if dice.random() < 0.15:
        # Taken after the service has given up waiting.
        wanted["slow"] = {"probability": 0.2, "seconds": 1.3 * TIMEOUT}
    return wanted
