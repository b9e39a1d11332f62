"""Calls that block, made beside the event loop in threads that nobody has to wait for when the process ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

_Result = TypeVar("_Result")
_Outcome = TypeVar("_Outcome")


async def in_background(call: Callable[[], _Result]) -> _Result:
    """The result of `call`, or its exception. When this is cancelled the call goes on, and its result is dropped.

    `asyncio.to_thread` would hold the end of the process up until a bus or vendor that does not answer has timed out.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(done: Callable[[_Outcome], None], outcome: _Outcome) -> None:
        if not future.done():
            done(outcome)

    def run() -> None:
        try:
            outcome = partial(settle, future.set_result, call())
        except Exception as failure:
            outcome = partial(settle, future.set_exception, failure)
        try:
            loop.call_soon_threadsafe(outcome)
        except RuntimeError:
            # The loop is closed: nobody waits for it any more.
            return

    threading.Thread(target=run, name="feed", daemon=True).start()
    return await future
