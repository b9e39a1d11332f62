"""A connection that does not end, against a server that does all it can."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from quantlytic_assets.feeds.connection import Connection, ConnectionRules, Lost, Opened, Received

RULES = ConnectionRules(silence=20, first_wait=1, longest_wait=8, healthy=1000)
Script = Callable[[ServerConnection], Awaitable[None]]


async def gather(
    scripts: list[Script],
    events: int,
    rules: ConnectionRules = RULES,
    greetings: tuple[str, ...] = (),
    rejections: list[Response] | None = None,
    react: Callable[[Connection, object], object] = lambda connection, event: None,
) -> tuple[list, list[float]]:
    """The first so many events against a server that follows a script a connection; and the waits between them.

    `react` sees each event, and ends it by returning `stop`.
    """
    waits: list[float] = []
    rejections = rejections or []
    left = list(scripts)

    async def script(socket: ServerConnection) -> None:
        await (left.pop(0) if left else hold)(socket)

    def reject(socket: ServerConnection, request: Request) -> Response | None:
        return rejections.pop(0) if rejections else None

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async with serve(script, "127.0.0.1", 0, process_request=reject, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(f"ws://127.0.0.1:{port}", greetings, rules, sleep=wait, chance=lambda: 1.0)
        got = []
        async with asyncio.timeout(30):
            async for event in connection.events():
                got.append(event)
                if react(connection, event) == "stop" or len(got) == events:
                    break
    return got, waits


def run(*arguments, **options):
    return asyncio.run(gather(*arguments, **options))


async def hold(socket: ServerConnection) -> None:
    await socket.wait_closed()


def say(*texts: str, then: Script) -> Script:
    async def script(socket: ServerConnection) -> None:
        for text in texts:
            await socket.send(text)
        await then(socket)

    return script


def close(code: int) -> Script:
    return lambda socket: socket.close(code, "bye")


async def tear(socket: ServerConnection) -> None:
    socket.transport.abort()


async def echo(socket: ServerConnection) -> None:
    async for text in socket:
        await socket.send(text)


def test_greetings_are_sent_and_messages_come_in_order():
    got, _ = run([echo], 3, greetings=("first", "second"))
    assert got == [Opened(), Received("first"), Received("second")]


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1012, 4000])
def test_it_comes_back_after_any_close(code):
    got, waits = run([say("a", then=close(code)), say("b", then=hold)], 5)
    assert got == [Opened(), Received("a"), Lost(f"closed with {code} bye"), Opened(), Received("b")]
    assert waits == [1]


def test_it_comes_back_after_a_torn_connection():
    got, waits = run([say("a", then=tear), say("b", then=hold)], 5)
    assert [type(one) for one in got] == [Opened, Received, Lost, Opened, Received]
    assert got[2].reason == "closed with no farewell" and waits == [1]


def test_waits_double_up_to_a_bound_also_after_clean_closes():
    _, waits = run([close(1000)] * 6, 12)
    assert waits == [1, 2, 4, 8, 8]


def test_waits_are_half_to_all_of_that():
    waits = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def go() -> None:
        # Nobody listens on port 9 of this machine.
        connection = Connection("ws://127.0.0.1:9", (), RULES, sleep=wait, chance=lambda: 0.0)
        async for event in connection.events():
            assert event.reason.startswith("no connection: ")
            if len(waits) == 4:
                return

    asyncio.run(go())
    assert waits == [0.5, 1, 2, 4]


def test_a_connection_that_held_starts_the_waits_anew():
    rules = ConnectionRules(silence=20, first_wait=1, longest_wait=8, healthy=0.05)

    async def good(socket: ServerConnection) -> None:
        await asyncio.sleep(0.2)
        await socket.close(1001)

    _, waits = run([close(1000), close(1000), close(1000), good, close(1000)], 10, rules=rules)
    assert waits == [1, 2, 4, 1]


def test_silence_is_an_end():
    rules = ConnectionRules(silence=0.1, first_wait=1)
    got, waits = run([hold, say("b", then=hold)], 4, rules=rules)
    assert got == [Opened(), Lost("silent for 0.1 s"), Opened(), Received("b")]
    assert waits == [1]


def test_messages_that_show_no_life_are_silence_too():
    async def chatter(socket: ServerConnection) -> None:
        while True:
            await socket.send("noise")
            await asyncio.sleep(0.01)

    rules = ConnectionRules(silence=0.2, first_wait=1)
    got, _ = run([chatter], 10_000, rules=rules, react=lambda _, event: "stop" if isinstance(event, Lost) else None)
    assert Received("noise") in got and got[-1] == Lost("silent for 0.2 s")


def test_messages_that_show_life_keep_it():
    async def chatter(socket: ServerConnection) -> None:
        for _ in range(12):
            await asyncio.sleep(0.05)
            await socket.send("trade")
        await socket.close(1001)

    got, _ = run(
        [chatter], 14, rules=ConnectionRules(silence=0.4, first_wait=1), react=lambda connection, _: connection.alive()
    )
    assert [type(one) for one in got] == [Opened, *[Received] * 12, Lost]
    assert got[-1].reason == "closed with 1001"


def test_it_leaves_before_its_time_is_over_and_that_is_no_failure():
    rules = ConnectionRules(silence=20, lifetime=0.1, first_wait=1, healthy=1000)
    got, waits = run([hold, hold, hold], 6, rules=rules)
    assert got == [Opened(), Lost("its time was over")] * 3
    assert waits == [1, 1]


def test_it_is_renewed_on_demand():
    def react(connection: Connection, event: object) -> None:
        if event == Received("going"):
            connection.renew("the server goes")

    got, waits = run([say("going", then=hold), say("b", then=hold)], 5, react=react)
    assert got == [Opened(), Received("going"), Lost("the server goes"), Opened(), Received("b")]
    assert waits == [1]


def test_a_rejected_handshake_is_an_error_like_others_and_its_retry_after_is_heeded():
    busy = Response(http.HTTPStatus.TOO_MANY_REQUESTS, "busy", Headers({"Retry-After": "33"}), b"")
    gone = Response(http.HTTPStatus.BAD_GATEWAY, "gone", Headers(), b"<html>")
    got, waits = run([say("b", then=hold)], 4, rejections=[busy, gone])
    assert got == [Lost("rejected with HTTP 429"), Lost("rejected with HTTP 502"), Opened(), Received("b")]
    assert waits == [33, 2]


def test_what_is_no_address_is_told_at_once():
    with pytest.raises(ValueError, match="stream.example.org is no address"):
        Connection("stream.example.org", (), RULES)
