"""uvicorn's server without its ten looks a second for a request to stop.

They are most of what an idle process costs, and make each stop a tenth of a second longer. Here a
stop wakes the loop, which otherwise only renews the Date header, once a second.
"""

import asyncio
from contextlib import suppress

import uvicorn


class HttpServer(uvicorn.Server):
    """uvicorn's server; set ``should_exit`` from any thread, or from a signal handler."""

    _loop: asyncio.AbstractEventLoop | None = None
    _stopping: asyncio.Event
    _should_exit = False

    @property
    def should_exit(self) -> bool:
        """Whether the server stops, or has stopped."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if value and self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed: it has stopped.
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def main_loop(self) -> None:
        """Serve until ``should_exit``."""
        self._stopping, self._loop = asyncio.Event(), asyncio.get_running_loop()
        # With a counter of 0 the Date header is renewed (RFC 9110, section 6.6.1: by the second).
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1)
