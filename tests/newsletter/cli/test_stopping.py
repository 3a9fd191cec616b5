"""Stop signals, in the moments in which a program notices them least."""

import signal
import threading
import time

import pytest

from newsletter.cli.actor import STOPS, stopping


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_that_does_not_interrupt_the_wait_ends_it(number: signal.Signals) -> None:
    """As when it arrives just before the thread blocks: here another thread receives it."""

    def receive() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), number)

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        with stopping() as stop:
            other = threading.Thread(target=receive)
            other.start()
            assert stop.wait(10)
            assert stop.signal == number
            other.join()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_the_first_signal_counts_and_a_wait_ends_without_one() -> None:
    with stopping() as stop:
        assert not stop.wait(0.01)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        assert stop.signal == signal.SIGTERM
        assert stop.wait()
