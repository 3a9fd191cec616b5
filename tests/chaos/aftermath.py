"""The operator: looks at what stands in the list, at what the provider has, and decides."""

from collections import Counter
from dataclasses import dataclass

from newsletter.sending.states import BatchState
from tests.chaos.books import Finding
from tests.chaos.launch import until
from tests.chaos.world import LATER, World

#: How often the operator looks at a send that pauses itself.
_LOOKS = 10


@dataclass(slots=True)
class Verdict:
    """What a round came to."""

    #: Right after the last crash, with every process dead.
    crashed: Finding
    #: In the list of doubt before any event was let in.
    in_doubt: int
    #: Of these batches, proved by events.
    proved: int
    #: And settled by the operator's word: was sent, is to be sent again.
    sent: int
    resent: int
    #: At the end.
    final: Finding

    @property
    def sound(self) -> bool:
        """Whether the promise held at both looks."""
        return self.crashed.sound and self.final.sound


def put_right(
    world: World, *, later: float = LATER, set_back: bool = False, by_schedule: bool = False
) -> Verdict:
    """From a crash to a send that adds up, by what an operator has: events, list, commands.

    Every process is dead. AssertionError or TimeoutError says what did not come right. A
    database that was ``set_back`` cannot know what left: it is judged once a process has begun.
    ``by_schedule``, the send is made once more, unless everybody had it before.
    """
    world.at_rest()
    # Until the list of doubt has been looked at, no event changes it.
    world.relay.posted.gate.clear()
    crashed = Finding() if set_back else world.compare()
    left = world.left_without()
    world.faults()
    world.relay.open()
    world.clock += later
    world.start()
    if by_schedule and not world.until_fired():
        world.end_all()
        final = world.compare(final=True)
        return Verdict(crashed, 0, 0, 0, 0, final)
    _rests(world, "after the crash")
    doubtful = _list_is_complete(world)
    in_doubt = sum(len(world.books().within(batch)) for batch in doubtful)
    proved = _events_prove(world, doubtful)
    sent, resent = _resolve_the_rest(world)
    _rests(world, "after the doubts are settled")
    world.end_all()
    final = world.compare(final=True)
    if late := sorted(left - world.left_without()):
        final.wrong.append(f"{len(late)} people had left and got it nevertheless {late[:10]}")
    state = world.books().send
    if state not in {"sent", "cancelled"}:
        final.wrong.insert(
            0, f"the send is {state}: {world.command('sends', 'show', str(world.send))}"
        )
    return Verdict(crashed, in_doubt, proved, sent, resent, final)


def _rests(world: World, when: str) -> None:
    """Wait until nothing more happens by itself. Where the send has paused itself, the operator
    reads why and goes on; the circuit breaker may open again by what comes back of that."""
    for _ in range(_LOOKS):
        world.until(lambda b: b.quiet, seconds=90, what=f"the service comes to rest {when}")
        now = world.books()
        if now.send != "paused":
            return
        world.pauses.append(now.reason)
        world.command("sends", "resume", str(world.send))
    raise AssertionError(f"the send pauses again and again: {world.pauses}")


def _list_is_complete(world: World) -> list[int]:
    """What is open is in doubt, every doubt is shown, and the others are as they should be."""
    world.wire_is_idle()
    now, taken = world.books(), world.taken()
    doubtful = now.of(BatchState.UNCERTAIN)
    shown = world.command("sends", "show", str(world.send))
    for batch in doubtful:
        assert f"batch {batch} is uncertain" in shown, f"batch {batch} is not listed\n{shown}"
    for person, line in now.people.items():
        if line.state == "planned" and line.batch not in doubtful:
            assert not taken[person], f"{person} has it, and no list says so"
    return doubtful


def _events_prove(world: World, doubtful: list[int]) -> int:
    """Let the events in: the doubts go whose people the provider has."""
    world.relay.posted.gate.set()
    books, taken = world.books(), world.taken()
    has = {batch for batch in doubtful if any(taken[person] for person in books.within(batch))}

    def proved() -> set[int]:
        return has - set(world.books().of(BatchState.UNCERTAIN))

    until(
        lambda: proved() == has or world.events_are_in(),
        seconds=90,
        what="the events do not come in",
    )
    known = proved()
    assert known == has or world.events_were_lost, f"no event proved {sorted(has - known)}"
    return len(known)


def _resolve_the_rest(world: World) -> tuple[int, int]:
    """What no event settled, the operator does: looks for each batch into the sandbox."""
    now, taken = world.books(), world.taken()
    words = dict[int, str]()
    for batch in now.of(BatchState.UNCERTAIN):
        has = {taken[p] > 0 for p in now.within(batch) if now.people[p].state == "planned"}
        assert len(has) == 1, f"the provider has a part of batch {batch}"
        words[batch] = "--sent" if has == {True} else "--resend"
    resolve = ("sends", "resolve", str(world.send))
    if len(words) > 1 and len(set(words.values())) == 1:
        world.command(*resolve, "--all", *set(words.values()))
    else:
        for batch, word in words.items():
            world.command(*resolve, "--batch", str(batch), word)
    said = Counter(words.values())
    return said["--sent"], said["--resend"]
