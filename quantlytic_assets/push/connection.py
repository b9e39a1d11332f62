"""A connection: frames in, frames out, whatever protocol is spoken; and what all connections of a process share.

One task reads frames and checks them, another does what they ask and sends what is new, in turn, so that nothing that
is sent overtakes something else. Whoever does not read is waited for, and costs a socket's buffer and no queue.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

from quantlytic_assets.push.ages import Ages
from quantlytic_assets.push.catalog import Catalog
from quantlytic_assets.push.frames import FrameError, read_frame
from quantlytic_assets.push.hub import Dialect, Hub, message
from quantlytic_assets.push.limits import Allowance, Connects, PushLimits
from quantlytic_assets.push.reader import Forgotten, JournalReader
from quantlytic_assets.serving.hot_store import HotStore

_log = logging.getLogger(__name__)

# As ASGI has them.
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
# Looks a credential up again and gives its scopes; raises `Refused`.
Permit = Callable[[], frozenset[str]]

# Close codes of RFC 6455.
GOING_AWAY, POLICY, FAULT, TRY_LATER = 1001, 1008, 1011, 1013
# Heartbeats after which a credential is looked at again: it may have been revoked, or have run out.
_BEATS_TO_RECHECK = 15
_WAITING_FRAMES = 64


class Refused(Exception):
    """A credential that is missing or wrong; the message says what is right."""


class Unavailable(Exception):
    """There is no store to read now; the message says why."""


class Ended(Exception):
    """The connection is closed by us, with this code; the message says why."""

    def __init__(self, code: int, reason: str):
        super().__init__(reason)
        self.code = code


class Credentials(Protocol):
    """Finds who a credential belongs to."""

    def of_headers(self, headers: Headers) -> Permit:
        """Of the headers of a request, which may need none. Raises `Refused`."""

    def of_key(self, key: str, secret: str | None = None) -> Permit:
        """Of a key or token that a message has, and the second part that Alpaca's clients send. Raises `Refused`."""


class Push:
    """What the connections of a process share. The journal is followed from the first connection on.

    store: gives the store that is in place now, another one where it was replaced; raises `Unavailable`.
    """

    def __init__(
        self,
        store: Callable[[], HotStore],
        catalog: Callable[[], Catalog],
        credentials: Credentials,
        limits: PushLimits | None = None,
    ):
        self.catalog = catalog
        self.credentials = credentials
        self.limits = limits or PushLimits()
        self.connects = Connects(self.limits.connects)
        self.open: set[Connection] = set()
        self._store = store
        self._hub: Hub | None = None
        self._following: asyncio.Task | None = None

    def hub(self) -> Hub:
        """The hub, which runs in this event loop. Raises `Unavailable`."""
        store = self._store()
        if self._hub is not None and self._hub.store is not store:
            self._forget("the store was replaced")
        if self._hub is None:
            self._hub = Hub(store, Ages(store, self.catalog))
            self._following = asyncio.get_running_loop().create_task(self._hub.run())
            self._following.add_done_callback(self._ended)
        return self._hub

    async def serve(self, make: Callable[..., Connection], scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a websocket by the connection that `make` makes of this, scope, receive and send."""
        try:
            connection = make(self, scope, receive, send)
        except Unavailable as error:
            await receive()
            await turn_away(send, str(error))
            return
        await connection.run()

    def _ended(self, following: asyncio.Task) -> None:
        if following is not self._following:
            return
        if not following.cancelled() and (error := following.exception()) is not None:
            _log.error("the journal can't be followed: %s", error, exc_info=error)
        self._forget("the journal can't be followed")

    def _forget(self, why: str) -> None:
        """Nobody is sent anything any more: all are told, and who connects again starts a new hub."""
        following, self._hub, self._following = self._following, None, None
        if following is not None:
            following.cancel()
        for connection in self.open:
            connection.end(FAULT, f"{why}; connect again")

    async def close(self) -> None:
        """End the following of the journal."""
        if self._following is not None:
            self._following.cancel()


class Connection(ABC):
    """One websocket. `packed`: it is sent MessagePack, else JSON."""

    def __init__(self, push: Push, scope: Scope, receive: Receive, send: Send):
        self.push = push
        self.hub = push.hub()
        self.packed = self.wants_packed(scope)
        self.permit: Permit | None = None
        self.reader = JournalReader(self.hub, self.dialect(), self.packed, send, self.wake)
        self._scope, self._receive, self._send = scope, receive, send
        self._something = asyncio.Event()
        self._todo: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(_WAITING_FRAMES)
        self._beat = self.hub.beat
        self._end: Ended | None = None

    # What a protocol says ----------------------------------------------------------------------------------------

    @abstractmethod
    def dialect(self) -> Dialect:
        """How updates are said; the same object for all connections with the same words."""

    @abstractmethod
    def wants_packed(self, scope: Scope) -> bool:
        """Whether the client wants MessagePack, by the request that it made."""

    @abstractmethod
    async def greet(self) -> None:
        """What is sent first."""

    @abstractmethod
    def asked(self, frame: Mapping[str, Any]) -> Callable[[], Awaitable[None]]:
        """What is to be done about a frame, in its turn. Raises `FrameError`."""

    @abstractmethod
    async def complain(self, error: FrameError) -> None:
        """Say what is wrong with a frame."""

    @abstractmethod
    async def forgotten(self) -> None:
        """Go on from now: the journal has forgotten what the reader has not had."""

    # The connection ----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have it look for what there is to do."""
        self._something.set()

    def end(self, code: int, reason: str) -> None:
        """Close it in its turn."""
        self._end = Ended(code, reason)
        self.wake()

    async def send_frame(self, frame: bytes) -> None:
        """Send a frame, once there is room for it."""
        await self._send(message(frame, self.packed))

    async def run(self) -> None:
        """Serve until either side closes."""
        limits = self.push.limits
        await self._receive()
        address = (self._scope.get("client") or ("unknown",))[0]
        wait = self.push.connects.take(address)
        if wait or len(self.push.open) >= limits.connections:
            reason = f"too many connects: try again in {wait:.0f} s" if wait else "too many are connected"
            await turn_away(self._send, reason)
            return
        self.push.open.add(self)
        try:
            await self._send({"type": "websocket.accept"})
            await self._serve()
        finally:
            self.push.open.discard(self)
            self.reader.close()

    async def _serve(self) -> None:
        tasks = [asyncio.create_task(one) for one in (self._do(), self._listen(), self._wait_for_credential())]
        try:
            done, _ = await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = task.exception()
            if isinstance(error, Ended):
                await self._close(error)
            elif error is not None and not _is_gone(error):
                _log.error("a websocket ended with an error", exc_info=error)
                await self._close(Ended(FAULT, "an error on our side; it is in the log"))

    async def _close(self, ended: Ended) -> None:
        try:
            await self._send({"type": "websocket.close", "code": ended.code, "reason": str(ended)[:120]})
        except Exception as error:
            if not _is_gone(error):
                raise

    async def _wait_for_credential(self) -> None:
        await asyncio.sleep(self.push.limits.sign_in)
        if self.permit is None:
            self.end(POLICY, "no credential came in time")

    async def _listen(self) -> None:
        limits = self.push.limits
        allowance, wrong = Allowance(limits.frames, limits.burst), 0
        while True:
            received = await self._receive()
            if received["type"] == "websocket.disconnect":
                return
            # Who sends too much is read from more slowly.
            await asyncio.sleep(allowance.take())
            try:
                work = self.asked(read_frame(received.get("text"), received.get("bytes")))
                wrong = 0
            except FrameError as error:
                wrong += 1
                if wrong >= limits.wrong:
                    raise Ended(POLICY, f"{wrong} frames in a row were wrong; the last: {error}") from None
                work = _later(self.complain, error)
            await self._todo.put(work)
            self.wake()

    async def _do(self) -> None:
        await self.greet()
        while True:
            await self._something.wait()
            self._something.clear()
            if self._end is not None:
                raise self._end
            try:
                while not self._todo.empty():
                    try:
                        await self._todo.get_nowait()()
                    except FrameError as error:
                        await self.complain(error)
                await self.reader.deliver()
            except Forgotten:
                await self.forgotten()
                self.wake()
            if self._beat != self.hub.beat:
                self._beat = self.hub.beat
                await self._on_beat()

    async def _on_beat(self) -> None:
        try:
            self.push.hub()
        except Unavailable as error:
            raise Ended(TRY_LATER, str(error)) from None
        group = self.reader.group
        if group is not None:
            ages = group.ages(self.hub.ages, self.packed)
            frame = group.dialect.heartbeat(self.reader.cursor, self.reader.dropped, ages, self.packed)
            if frame is not None:
                await self.send_frame(frame)
        if self.permit is not None and self._beat % _BEATS_TO_RECHECK == 0:
            try:
                self.permit()
            except Refused as refused:
                raise Ended(POLICY, str(refused)) from None


async def turn_away(send: Send, reason: str) -> None:
    """Close a websocket at once, to be tried again later. It is opened first: browsers tell pages no other reason."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": TRY_LATER, "reason": reason[:120]})


def _later(work: Callable[[FrameError], Awaitable[None]], error: FrameError) -> Callable[[], Awaitable[None]]:
    async def do() -> None:
        await work(error)

    return do


def _is_gone(error: BaseException) -> bool:
    """Whether an error says that the client went away, in the words of the server that we run in."""
    if isinstance(error, RuntimeError):
        return "websocket.close" in str(error)
    return isinstance(error, OSError) or type(error).__name__ in ("ClientDisconnected", "WebSocketDisconnect")
