"""Sends webhooks: a thread of each process leases endpoints, and a few more post to them."""

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from newsletter.db.engine import reading, transaction
from newsletter.wakeups import Wakeups
from newsletter.webhooks import deliveries, signatures
from newsletter.webhooks.deliveries import Answer, LeasedEndpoint, NextDelivery

if TYPE_CHECKING:
    from newsletter.checking.network.http_probe import Poster

_log = logging.getLogger(__name__)
#: Endpoints that a process posts to at once.
_CONCURRENCY: Final = 8
#: An endpoint with many deliveries lets others have their turn after so many seconds.
_TURN: Final = 10.0
#: The longest request, and the most bytes of an answer that are read.
TIMEOUT: Final = timedelta(seconds=15)
_READ: Final = 64 * 1024
#: Seconds that a request under way may take when the process stops, and between looks at that.
_LAST: Final = 3.0
_LOOK: Final = 0.25
#: Seconds to wait after an error of the database.
_RETRY_DELAY: Final = 2.0
#: Seconds between two queries for other endpoints while some are posted to.
_BUSY_INTERVAL: Final = 0.25


class WebhookSender:
    """Sends what is due, from ``start`` to ``stop``.

    Without endpoints it only waits: each wakeup costs one query, and no further thread exists.
    """

    def __init__(
        self, database: Engine, wakeups: Wakeups, *, allow_hosts: Collection[str], version: str
    ) -> None:
        self._database, self._wakeups = database, wakeups
        self._allow_hosts = frozenset(allow_hosts)
        self._agent = f"newsletter/{version}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="webhooks")

    def start(self) -> None:
        """Start to send."""
        self._wakeups.enter()
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; return when the requests under way are answered and stored.

        A receiver has three more seconds. What it has not answered by then is sent again later.
        """
        self._stopping.set()
        self._wakeups.wake_all()
        self._thread.join()
        self._wakeups.leave()

    def send_due(self) -> None:
        """Send until nothing is due."""
        # Its threads end with it, so that an idle process has none.
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="webhook") as threads:
            turns: set[Future[None]] = set()
            while True:
                while len(turns) < _CONCURRENCY and not self._stopping.is_set():
                    if (endpoint := self._lease()) is None:
                        break
                    turns.add(threads.submit(self._take_turn, endpoint))
                if not turns:
                    return
                done, turns = wait(turns, timeout=_BUSY_INTERVAL, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()

    def _work(self) -> None:
        while not self._stopping.is_set():
            seen = self._wakeups.count
            try:
                with reading(self._database) as session:
                    is_due = deliveries.any_due(session, now=datetime.now(UTC))
                if is_due:
                    self.send_due()
                else:
                    self._wakeups.wait(seen, self._stopping)
            except Exception:  # noqa: BLE001 (whatever it is, this thread must not end)
                # What was sent and not stored is sent again when its lease ends.
                _log.exception("could not send webhooks; trying again")
                self._stopping.wait(_RETRY_DELAY)

    def _lease(self) -> LeasedEndpoint | None:
        now = datetime.now(UTC)
        with reading(self._database) as session:
            if not deliveries.any_due(session, now=now):
                return None
        with transaction(self._database) as session:
            return deliveries.lease(session, now=now)

    def _take_turn(self, endpoint: LeasedEndpoint) -> None:
        # An event loop for each turn: this thread may wait for the database within it.
        asyncio.run(self._send_to(endpoint))

    async def _send_to(self, endpoint: LeasedEndpoint) -> None:
        # Imported here: its libraries take memory, which processes without webhooks do not need.
        from newsletter.checking.network.http_probe import poster  # noqa: PLC0415

        ends = time.monotonic() + _TURN
        async with poster(allow_hosts=self._allow_hosts) as client:
            with transaction(self._database) as session:
                sent = deliveries.take(session, endpoint, now=datetime.now(UTC))
            while sent is not None:
                answer = await self._unless_stopped(self._post(client, endpoint, sent))
                if answer is None:
                    break
                may_continue = not self._stopping.is_set() and time.monotonic() < ends
                with transaction(self._database) as session:
                    now = datetime.now(UTC)
                    goes_on = deliveries.settle(session, endpoint, sent, answer, now=now)
                    further = goes_on and may_continue
                    sent = deliveries.take(session, endpoint, now=now) if further else None
        with transaction(self._database) as session:
            deliveries.release(session, endpoint, now=datetime.now(UTC))

    async def _unless_stopped(self, post: Coroutine[None, None, Answer]) -> Answer | None:
        """The answer; None if the process stops before the receiver answers."""
        request = asyncio.create_task(post)
        left = _LAST
        while not (await asyncio.wait({request}, timeout=_LOOK))[0]:
            left -= _LOOK if self._stopping.is_set() else 0
            if left <= 0:
                request.cancel()
                await asyncio.wait({request})
                return None
        return request.result()

    async def _post(self, client: "Poster", endpoint: LeasedEndpoint, sent: NextDelivery) -> Answer:
        headers = signatures.headers(
            sent.message_id, int(datetime.now(UTC).timestamp()), sent.body, endpoint.secrets
        )
        headers += [("content-type", "application/json"), ("user-agent", self._agent)]
        found, text = await client.post(
            endpoint.url, headers, sent.body, patience=TIMEOUT, read=_READ
        )
        answer = Answer(found.status, found.why or text.decode(errors="replace"))
        if not answer.is_success:
            _log.warning("webhook endpoint %s: %s", endpoint.id, answer.status or answer.text[:200])
        return answer
