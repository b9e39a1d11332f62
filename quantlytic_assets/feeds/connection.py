"""A websocket connection that does not end: it is made again, with growing waits, whatever happens to it.

What the messages mean, and whether they show that the stream lives, is the reader's business.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.uri import parse_uri

_OPEN_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_PING_SECONDS = 20.0
_LARGEST_MESSAGE = 4 << 20
_REJECTED_FOR = 600.0


@dataclass(frozen=True)
class ConnectionRules:
    """When a connection is left and made again, all in seconds.

    It is left when nothing that shows life came for `silence`, and after `lifetime`, before the venue cuts it. Waits
    start at `first_wait` and double up to `longest_wait`; a connection that held for `healthy` starts them anew.
    """

    silence: float
    lifetime: float = 23 * 3600 + 45 * 60
    first_wait: float = 0.5
    longest_wait: float = 60.0
    healthy: float = 60.0


@dataclass(frozen=True)
class Opened:
    """A connection stands and what there was to subscribe to is sent."""


@dataclass(frozen=True)
class Received:
    """One message."""

    text: str | bytes


@dataclass(frozen=True)
class Lost:
    """There is no connection, or it could not be made; the next attempt follows by itself."""

    reason: str


class Connection:
    """Connects to `url`, sends `greetings`, and hands on what comes. Raises `ValueError` for what is no address.

    `sleep` and `chance` (numbers of [0, 1)) are there for whoever wants to know or decide how long it waits.
    """

    def __init__(
        self,
        url: str,
        greetings: Sequence[str],
        rules: ConnectionRules,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ):
        try:
            parse_uri(url)
        except InvalidURI:
            raise ValueError(f"{url} is no address of a websocket, such as wss://host:port") from None
        self.url = url
        self._greetings = list(greetings)
        self._rules = rules
        self._sleep = sleep
        self._chance = chance
        self._alive_at = 0.0
        self._leave: str | None = None

    def alive(self) -> None:
        """The last message shows that the stream lives."""
        self._alive_at = asyncio.get_running_loop().time()

    def renew(self, reason: str) -> None:
        """Leave this connection for a new one, now."""
        self._leave = reason

    async def events(self) -> AsyncIterator[Opened | Received | Lost]:
        """Everything that happens, for ever; ends by cancellation only."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            opened_at, planned, asked = None, False, 0.0
            try:
                async with connect(
                    self.url,
                    open_timeout=_OPEN_SECONDS,
                    close_timeout=_CLOSE_SECONDS,
                    ping_interval=_PING_SECONDS,
                    ping_timeout=_PING_SECONDS,
                    max_size=_LARGEST_MESSAGE,
                ) as socket:
                    for greeting in self._greetings:
                        await socket.send(greeting)
                    opened_at, self._leave = loop.time(), None
                    self.alive()
                    yield Opened()
                    while self._leave is None:
                        text = await self._receive(socket, opened_at)
                        if text is not None:
                            yield Received(text)
                    reason, planned = self._leave, True
            except _Silence as silence:
                reason = str(silence)
            except ConnectionClosed as error:
                reason = f"closed with {_farewell(error)}"
            except InvalidStatus as error:
                reason, asked = f"rejected with HTTP {error.response.status_code}", _retry_after(error)
            except (OSError, TimeoutError, WebSocketException) as error:
                reason = f"no connection: {str(error) or type(error).__name__}"
            if planned or (opened_at is not None and loop.time() - opened_at >= self._rules.healthy):
                failures = 0
            wait = max(self._wait(failures), asked)
            # A planned change is no failure, and neither is the first cut after a good time.
            failures += 0 if planned else 1
            yield Lost(reason)
            await self._sleep(wait)

    async def _receive(self, socket: ClientConnection, opened_at: float) -> str | bytes | None:
        """The next message, or None when it is time to look around. Raises `_Silence`."""
        ends, silent = opened_at + self._rules.lifetime, self._alive_at + self._rules.silence
        try:
            async with asyncio.timeout_at(min(ends, silent)):
                return await socket.recv()
        except TimeoutError:
            if asyncio.get_running_loop().time() >= ends:
                self.renew("its time was over")
            elif self._alive_at + self._rules.silence <= asyncio.get_running_loop().time():
                raise _Silence(f"silent for {self._rules.silence:g} s") from None
            return None

    def _wait(self, failures: int) -> float:
        """Half to all of the doubled wait: whoever was cut off together does not come back together."""
        longest = min(self._rules.first_wait * 2 ** min(failures, 30), self._rules.longest_wait)
        return longest * (0.5 + self._chance() / 2)


class _Silence(Exception):
    """Nothing that shows life came for too long."""


def _farewell(error: ConnectionClosed) -> str:
    if error.rcvd is None:
        return "no farewell"
    return f"{error.rcvd.code} {error.rcvd.reason}".strip()


def _retry_after(error: InvalidStatus) -> float:
    given = error.response.headers.get("Retry-After", "")
    return min(float(given), _REJECTED_FOR) if given.isdigit() else 0.0
